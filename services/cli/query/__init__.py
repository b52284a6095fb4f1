"""`simile query`: searches a running Simile."""
