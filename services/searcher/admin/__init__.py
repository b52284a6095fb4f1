"""Manages index versions: copies, duplicates, evaluation, plots."""
