"""Being a well-behaved process: logs, rates, signals, waits and tasks that end, a watched loop, faults on request."""
