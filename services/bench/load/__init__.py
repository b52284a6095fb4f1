"""Asks a running Simile and measures its answers."""
