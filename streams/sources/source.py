"""The contract of a source: it reads events into a publisher, from a position that is safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from streams.kafka.publisher import Publisher


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """The state of a reading: ``now`` in seconds, the other times in µs since the epoch, ``received`` in bytes.

    ``events``: how many those bytes held, whether they were kept or not.

    ``position`` is the newest event's time, ``oldest`` that of the oldest that the relay kept at ``oldest_at``,
    ``head`` where the reading will end (None: live, or not known). ``waits``: the connection is open and read, so if
    nothing comes, it is the relay that we wait for. ``away``: the relay gives us no connection, so nothing can be read.
    """

    now: float
    wall: int
    received: int
    position: int | None
    oldest: int | None
    oldest_at: int
    head: int | None
    waits: bool = False
    events: int = 0
    away: bool = False


class Source(Protocol):
    """A source of events for one run of an ingest. It outlives the publishers that it reads into."""

    def begin(self, publisher: Publisher) -> None:
        """Tell the publisher the position and, until Kafka has it, the topic how this run began."""

    async def read(self, publisher: Publisher) -> None:
        """Read until everything that was asked for is read, or until a stop. Raises SendError, RelayError."""

    def go_back(self, publisher: Publisher) -> bool:
        """Continue at the last durable position of a failed publisher. Return whether that is a new one."""

    def hold(self, held: bool) -> None:
        """Stop reading, or go on reading."""

    def stop(self) -> None:
        """End the reading."""

    def progress(self) -> ReadProgress:
        """Return where the reading stands."""
