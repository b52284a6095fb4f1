"""Decodes in child processes with limits of memory and CPU time."""
