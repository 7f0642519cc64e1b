"""Pages and lines on a terminal.

It turns values into text, and draws it. It never reads Kafka or Postgres, and a stranger's string is made safe first.

- ``status_page``: a Status as a page. Pure.
- ``config``: every setting, its value without secrets, and its source. Pure.
- ``ingest_bar``: the ingest's progress: a bar on a terminal, else a log line every few seconds.
- ``worker_line``: the worker's progress: one line at the bottom of a terminal.
"""
