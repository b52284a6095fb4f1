"""Looks after index versions: copies, duplicates, evaluation, plots."""
