"""Real processes, as operators run them."""
