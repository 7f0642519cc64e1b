"""The state of a deployment: reports of its processes, answers of Kafka, Postgres and the relay, troubles."""
