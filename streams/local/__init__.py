"""Everything on one machine: the embedded Kafka and Postgres, ``make run`` and its demo.

It owns the folder LOCAL_DIR. It listens on loopback only, and never signals a process that it has not recognised as its
own. ``kafka_jars.txt`` pins Kafka's jars by hash.

- ``__main__``: ``python -m streams.local``: up, down, status, env, psql, run.
- ``stack``: both servers as one thing in one folder.
- ``kafka``, ``jars``: the embedded broker, and the jars and Java that it needs.
- ``postgres``, ``unprivileged``: the embedded Postgres, and how root's child becomes ``nobody``.
- ``process``, ``ports``: a detached server process, and free ports for it.
- ``run``: ``make run``: starts what is missing, and ends when everything is in Postgres.
- ``processes``, ``display``: the ingest and the worker as its children, and what it shows.
- ``demo``: ``make demo``: generated traffic, its own topic and schema.
- ``relay``: the old name of ``python -m streams.simulator``, for one release.
"""
