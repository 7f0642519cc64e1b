"""Whole commands, measured: figures are ratios from one run on one machine, never a timed unit test.

- ``__main__``: ``make bench``, the whole way and each stage; its result as a table and as JSON.
- ``rounds``: one round of it, everything once.
- ``stages``, ``apply``: relay to rows, the ingest and the worker alone; prepared batches alone.
- ``sdk``, ``script``, ``floor``, ``floor_servers``: what they are compared with.
- ``workload``, ``servers``, ``programs``, ``verify``: the traffic, Kafka and Postgres, our processes, the rows' check.
- ``wrong_ways``: ways that were given up, measured beside ours.
- ``procfs``, ``cpu``, ``sampling``: CPU and memory of processes, Postgres' by kind.
- ``hops``, ``hop_profiler``, ``stack_sampler``: the hops of our processes, and a profiler in them that counts these.
- ``figures``, ``summary``, ``report``: figures of one measurement, medians and ratios, the table. Pure.
- ``markdown``: the tables of docs/performance.md.
- ``growth``, ``growth_rows``, ``growth_table``: the cost of a row as the tables grow.
- ``memory``, ``views``: peak memory under a flood; indexes, counts and queries at many rows.
"""
