"""Searches one index version."""
