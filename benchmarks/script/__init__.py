"""A script of one's own, as one would write it with the usual libraries: what the benchmark compares the program with.

It is honest: batches, compression and one statement for many rows, where the libraries offer them. What it lacks is
what nobody writes at first: it may lose events at a crash, and a refused frame is only counted.

- ``client``: the SDK's client; each operation of a commit becomes a message by aiokafka's ``send``.
- ``app``: a stock Faust agent, which takes up to 1,000 messages at a time and writes them by ``executemany``.
- ``run``: both measured, as the program is.
"""
