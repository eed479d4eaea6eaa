"""Anthropic's messages: translated on the stock SDK, or relayed."""
