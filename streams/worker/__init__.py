"""The process behind ``faust -A streams.agents worker``: its start, slices into transactions, its side tasks.

It owns the way of a slice up to the sink, and the parts of Faust that it replaces. It takes positions from Postgres,
never from Kafka, and moves Kafka's offsets only after a commit.

- ``faust_worker``: the process: checks, exit codes, bounded shutdown.
- ``container``, ``refusal``: the image's command, and the start that was refused for a setting.
- ``ingest_child``: the ingest as the worker's child process.
- ``app``: the Faust app, with the pipeline that its transport and its agents work for.
- ``pipeline``: what every command imports of a worker, its tables among it.
- ``checks``, ``running``: the checks at the start, and the parts of one worker that they make and connect.
- ``fetching``, ``transport``: fetches bounded in bytes, and the Faust transport that cuts them.
- ``slices``, ``slice_schema``: slices (pure), and the topic declared for them.
- ``lanes``, ``throttle``: slices into transactions, in order per partition; when the next may start, and its size.
- ``persistence``, ``stampede``: Faust's start and rebalances wait for a broker, and one call serves all callers.
- ``table_topics``: the changelogs of the Faust tables.
- ``report``, ``web``: the ``[BACKFILL]`` lines, and the worker's web port.
"""
