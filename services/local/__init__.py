"""Runs all services on one machine: `simile up`."""
