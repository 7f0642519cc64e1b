"""Postgres: how it is reached, its schema, and the statements that read and write it.

It owns the product's sessions, and the SQL: ``queries`` has the named queries, by subject, ``migrations`` the schema,
``cursor_table.sql`` the table ``firehose_cursor``. It never imports ``streams.kafka`` or Faust.

- ``session``, ``tls``: sessions, also through a pooler, and their TLS.
- ``database``, ``failures``: connections, retries; which errors pass, and which are fatal.
- ``migrate``: the schema's version: made, brought forward, checked.
- ``queries``: reads the SQL files of this package.
- ``batch``, ``apply``: messages of one partition into the rows of one transaction (pure), and that transaction.
- ``columns``, ``new_rows``: rows as joined texts; when they are expected to be new to the table. Pure.
- ``cursor``: the row in ``firehose_cursor``, derived from ``sink_offsets``.
- ``positions``: positions that an operator sets back, and the cursor set by hand.
- ``processes``: the tables ``processes`` and ``pauses``.
- ``indexes``: the optional indexes that are built after the load.
- ``lexicons``, ``lexicon_files``, ``lexicon_views``: lexicons as a set (pure), their files, their views (pure).
- ``sql_text``: names and texts quoted for SQL. Pure.
"""
