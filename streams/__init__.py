"""The AT Protocol's firehose, through Kafka, into Postgres: exactly once, as often as you like.

docs/architecture.md has the map, and the layers. ``lexicons`` holds the lexicons that the shipped views are made of.

- ``ingest``, ``ingestion``, ``sources``: relay to Kafka: the command, the life of an ingest, the sources of events.
- ``agents``, ``worker``, ``sink_postgres``, ``tables``: Kafka to Postgres: app, process, sink, Faust's tables.
- ``messages``, ``protocol``: the topic's messages, and the AT Protocol.
- ``kafka``, ``postgres``: how each server is reached, and what is kept there.
- ``status``, ``ui``: the state of a deployment, and what shows it.
- ``commands``, ``maintenance``: the operator's commands, and their long jobs.
- ``local``, ``run``: everything on one machine; the old name of ``python -m streams.local run``.
- ``simulator``: a relay to test against.
- ``settings``, ``environment``: every setting, and how people write them.
- ``resources``, ``runtime``: what we may take of the machine, and how a process behaves.
- ``errors``, ``text``: errors with their exit codes; numbers, times and strangers' strings for people.
"""

__version__ = "0.1.0"
