"""Dead letters: what one holds, and how they are found, read, purged and replayed.

It never guesses a letter's kind from its payload: the bytes are a stranger's.

- ``letter``: what a letter holds, and whether it can be replayed. Pure.
- ``store``: letters in Postgres: found, counted, purged.
- ``replay``: letters applied again, through the same merge as any slice.
- ``text``: a letter for people. Pure.
"""
