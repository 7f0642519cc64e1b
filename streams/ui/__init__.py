"""The output for people, and the metrics for machines that watch a deployment.

It shows a Status and a process's own figures. It never connects to Kafka or Postgres itself, and changes nothing there.

- ``terminal``: pages and lines on a terminal.
- ``web``: the web port: live page, metrics, health.
"""
