"""All of it on one machine: the embedded Kafka and Postgres, ``make run`` and its demo."""
