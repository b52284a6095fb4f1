"""Reads a request: its parameters and its images."""
