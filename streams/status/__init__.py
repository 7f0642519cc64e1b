"""How a deployment stands: what its processes say, what Kafka, Postgres and the relay answer, what is wrong."""
