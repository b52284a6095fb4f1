"""The HTTP server's side: connections, access, limits, headers and error bodies."""
