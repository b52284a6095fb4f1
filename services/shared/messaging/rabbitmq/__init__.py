"""The broker port's adapter to RabbitMQ."""
