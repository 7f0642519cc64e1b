"""The Kafka side: the topic, its messages, and the transports in and out of it."""
