"""One completion, whichever way it came in: resolve, hold, call the chain, settle."""
