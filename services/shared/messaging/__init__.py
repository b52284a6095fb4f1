"""Connects the services: one port (`broker`) and two adapters (`rabbitmq`, `memory`)."""
