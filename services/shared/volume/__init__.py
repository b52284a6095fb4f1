"""The format of collections on the volume."""
