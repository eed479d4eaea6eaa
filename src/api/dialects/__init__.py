"""Wire formats of others, translated to and from the domain by pure functions."""
