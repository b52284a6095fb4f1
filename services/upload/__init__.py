"""Serves the HTTP API: publishes queries, waits for replies, answers."""
