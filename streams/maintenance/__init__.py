"""Long jobs that an operator starts.

Each can be killed and started again. It never parses options or prints pages: that is ``streams.commands``.

- ``copy_topic``: a topic into another one with another number of partitions.
- ``rebuild``: a fresh schema from the retained topic, put in the live one's place.
- ``dead_letters``: dead letters found, read, purged and replayed.
- ``progress``: lines of progress for these jobs.
"""
