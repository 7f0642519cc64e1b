"""One ingest: its life, its pace, its reports. Its source is the firehose today; ``session`` makes it.

It owns the loop that publishes, goes back and publishes again. It never decodes a frame, writes a record to
Postgres or uses Faust.

- ``process``: one ingest process: web port, lock, sessions, stop signals.
- ``session``: the life of an ingest: plan, publish, go back after trouble with Kafka, end.
- ``backpressure``: the reasons for which the source is not read.
- ``resume``: the position in Postgres, for a topic that holds no watermark any more.
- ``pace``: the ingest's byte budget, and the speed that the relay's window demands.
- ``report``: the state of an ingest for ``processes``, and its last log line.
- ``web``: the ingest's figures for its web port.
"""
