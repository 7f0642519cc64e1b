"""Mutation fuzzing of the way from a relay's bytes to rows, with an oracle of its own: ``python -m tests.fuzz``."""
