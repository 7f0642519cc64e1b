"""The machine: what we may take of it, and how much of it we and others take now.

It owns the measures of CPU, disk and memory, and the budgets. It never touches other work: it changes only
the niceness of our own process or session, and our own allocator.

- ``idleness``: whether the machine is idle but for us. Pure.
- ``machine``: samples of the machine, once a second.
- ``process_table``, ``shares``: all processes with their CPU time, and who used the machine between two looks (pure).
- ``own_processes``, ``others``: the processes that work for us; the other work and its names (pure).
- ``pressure``, ``cgroups``: Linux' pressure stall information, and the limits of our container.
- ``niceness``: the step back behind other work.
- ``memory_budgets``: the memory limit, and the share of each kind of bytes.
- ``in_flight``: the bytes in flight, counted against these budgets.
- ``memory_watch``: RSS against the limit, once a second.
- ``ingest_budget``: how much the ingest may read while the delay holds. Pure.
"""
