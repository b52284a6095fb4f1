"""Clients of a running Simile: its HTTP API and its admin ports."""
