"""Everything outside the process: LLM providers, caches, buckets, tokens and telemetry."""
