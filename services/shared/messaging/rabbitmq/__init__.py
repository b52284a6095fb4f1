"""The broker port's adapter to RabbitMQ, with aio-pika."""
