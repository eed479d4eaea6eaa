"""Which deployment of which model is tried, and when none should be."""
