"""Finds neighbours in read-only index versions, and builds these versions."""
