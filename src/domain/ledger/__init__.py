"""Who may spend what: accounts, holds and entries, and the one arithmetic that every store of them runs."""
