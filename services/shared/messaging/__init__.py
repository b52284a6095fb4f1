"""How the services reach each other: one port (`broker`), two adapters (`amqp`, `memory`)."""
