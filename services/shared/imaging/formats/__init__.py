"""Reads the headers of each format within bounds."""
