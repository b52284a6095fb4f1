"""Decides who may ask: keys, sessions, host names, rates."""
