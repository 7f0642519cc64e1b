"""The faults that end a process: each carries a sentence for the operator and an exit code.

The table of exit codes in the README is tested against this module.
"""

from __future__ import annotations

from typing import ClassVar


class StreamsError(Exception):
    """An unrecoverable fault. ``str(error)`` is one sentence that says what to do."""

    exit_code: ClassVar[int] = 1


class SettingsError(StreamsError):
    """A setting or an argument is missing, unknown or out of range."""

    exit_code = 2


class BrokerError(StreamsError):
    """Kafka cannot be reached at the start, or refuses us."""

    exit_code = 3


class DatabaseError(StreamsError):
    """Postgres cannot be reached at the start, refuses us, or is full."""

    exit_code = 4


class RelayError(StreamsError):
    """The relay cannot be reached at the start, or refuses us."""

    exit_code = 5


class MismatchError(StreamsError):
    """The topic or the schema is not the one we know: re-created, resized, newer, or of another relay."""

    exit_code = 6


class HeldError(StreamsError):
    """Another process holds what we would write: an ingest the topic, a rebuild the schema, workers the positions."""

    exit_code = 7


class DiskError(StreamsError):
    """What was asked for does not fit on the broker's disk."""

    exit_code = 8


#: What `status --check` answers where anything is wrong.
EXIT_TROUBLES = 9
#: Exit codes that are not errors of ours but of the process: a crash whose shutdown hung, a stall.
EXIT_HUNG_SHUTDOWN = 70
EXIT_STALLED = 75
