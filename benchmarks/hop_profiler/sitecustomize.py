"""A process that finds this file at its start counts in which hops its CPU time goes."""

from benchmarks.stack_sampler import start

start()
