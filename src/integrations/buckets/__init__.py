"""Where rate buckets are counted: in this process, or for all of them in Redis."""
