"""The AT Protocol's firehose, through Kafka, into Postgres: exactly once, as often as you like."""

__version__ = "0.1.0"
