"""Where events come from: one package for each kind of source.

A source makes the messages of ``streams/messages.py`` and hands them to the publisher. It marks a position only after
every event before it was handed over. It never imports Faust, the worker or the sink.

- ``source``: what any source offers the ingest that runs it; ``ingestion/session`` asks the firehose for more.
- ``firehose``: a relay's subscribeRepos.
"""
