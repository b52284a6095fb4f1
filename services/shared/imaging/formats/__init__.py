"""Reads what the files of each format say about themselves, within bounds."""
