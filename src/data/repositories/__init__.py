"""Queries, a module per subject. Rows never leave this room."""
