"""Turns images into vectors, in batches."""
