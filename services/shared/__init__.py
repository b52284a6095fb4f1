"""What two or more services have in common; imports no service, no torch and no annoy."""
