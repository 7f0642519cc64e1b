"""How a process behaves: logs, rates, signals, waits, tasks, a watched event loop, faults on request.

It owns what every process needs whatever its work is. It never imports Kafka, Postgres or Faust.

- ``printing``: text on standard output, whatever its encoding.
- ``logs``: log lines for people on a terminal, JSON elsewhere.
- ``rates``: rates over the last seconds.
- ``signals``: SIGTERM and Ctrl-C call a function, and never kill.
- ``waiting``: waits that end with the stop signal; one line a minute about the same trouble.
- ``child_process``: the end of a child process, for sure.
- ``tasks``: tasks that end for sure, although a cancellation can be lost.
- ``loop_guard``: ends a process whose event loop is blocked.
- ``drills``: CRASH_AT and MEMORY_HOG: faults that tests switch on.
"""
