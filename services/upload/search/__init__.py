"""Sends queries to the other services and awaits their answers."""
