"""Holds the code that several services share; imports no service, no torch and no annoy."""
