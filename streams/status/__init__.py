"""The state of a deployment: what its processes, Kafka, Postgres and the relay say, and what is wrong.

It owns the Status that ``status``, the live page and the metrics show. It never changes the state of a deployment, but
for the row that each process writes of itself, and it never counts records.

- ``model``: the Status of a deployment.
- ``reader``: a Status from Kafka and Postgres, cheap enough for once a second.
- ``kafka_side``, ``postgres_side``, ``table_counts``: what Kafka, Postgres and a Faust table say.
- ``lag``: the sink against the topic: offsets, ends, counts.
- ``process``: the state that a process reports. Pure.
- ``heartbeat``: a process's row, every 2 s, and the pause that it answers with.
- ``coverage``: the time asked for, as stretches. Pure.
- ``troubles``: sentences about what is wrong. Pure.
- ``estimate``: how long the backfill will take.
- ``doctor``: checks of the machine, Kafka, Postgres and the relay.
"""
