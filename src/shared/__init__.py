"""What every room may use: errors, ids, clock, money, pages, logging, settings; nothing that knows a dialog."""
