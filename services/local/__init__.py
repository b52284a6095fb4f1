"""All services on one machine: `simile up`."""
