"""Generates load for `simile bench` over HTTP, measures, and recommends settings."""
