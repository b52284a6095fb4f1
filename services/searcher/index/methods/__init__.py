"""Ways to search an index version: a module for each, listed in `registry`."""
