"""`simile index`: builds and manages the index versions of collections."""
