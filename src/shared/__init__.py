"""What every room may use: errors, ids, clock, money, pages, logging, settings. Nothing here knows a dialog or a quota."""
