"""Simile: image similarity search as small services joined by a message broker."""
