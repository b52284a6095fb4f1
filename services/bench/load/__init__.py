"""Sends queries to a running Simile, and measures its answers."""
