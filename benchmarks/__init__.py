"""Whole commands, measured: figures are ratios from one run on one machine, never a timed unit test."""
