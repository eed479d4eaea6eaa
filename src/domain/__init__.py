"""What the gateway is, in plain Python: rules, use cases and the ports they need. No framework comes in here."""
