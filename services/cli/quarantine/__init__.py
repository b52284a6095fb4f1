"""`simile quarantine`: lists, shows, replays and drops quarantined messages."""
