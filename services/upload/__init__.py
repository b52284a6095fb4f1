"""The HTTP front: takes queries, publishes them, awaits and answers replies."""
