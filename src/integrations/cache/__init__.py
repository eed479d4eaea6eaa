"""The response cache, in memory or in Redis."""
