"""Everything that lets a request in: HTTP and the command line."""
