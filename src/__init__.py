"""LLM Gateway: tenants, quotas, dialogs and one door to every LLM provider."""
