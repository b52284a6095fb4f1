"""Controls access: keys, sessions, host names, rates."""
