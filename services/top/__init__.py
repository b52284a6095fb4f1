"""`simile top`: the services' rates, times, queues and replicas in a terminal."""
