"""Who calls: tenants, users, API keys, sessions, and the principal made of them once per request."""
