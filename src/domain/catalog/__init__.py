"""Models, prices and chains: what can be called and what it costs."""
