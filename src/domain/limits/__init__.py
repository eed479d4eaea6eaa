"""Rate limits: how many calls, tokens and calls at the same time a scope may have."""
