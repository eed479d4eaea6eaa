"""The native endpoints, a module per subject."""
