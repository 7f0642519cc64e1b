"""Slices: runs of records of one partition, cut from what was fetched, each following on from the one before.

Pure: no I/O and no clock. The transport asks; this module decides whether records may be delivered, must be fetched
again, or show that the log is no longer the one that was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from faust.types import TP

from streams.errors import MismatchError
from streams.resources.in_flight import InFlight

#: Most records of a slice. A slice costs about 1 ms whatever its size; more than this only adds latency.
SLICE_RECORDS: Final = 1000
#: A slice ends with the record that brings its values to this many bytes. One record may be larger.
SLICE_BYTES: Final = 1 << 20


class SlicedRecord(Protocol):
    """The parts of a parsed record of aiokafka that are used."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None


class Slice:
    """Records of one partition. The next slice's ``base`` is this one's ``next_offset``."""

    # No reference back to the Kafka message that carries it: a cycle would keep a megabyte until the next gc.
    __slots__ = ("__weakref__", "base", "epoch", "in_flight", "nbytes", "next_offset", "records", "tp")

    def __init__(self, tp: TP, base: int, records: list[SlicedRecord], epoch: int) -> None:
        self.tp = tp
        self.base = base
        self.records = records
        self.next_offset: int = records[-1].offset + 1
        self.epoch = epoch
        self.nbytes = values_size(records)
        #: The count of the bytes, for as long as the slice is kept.
        self.in_flight: InFlight | None = None

    def clear(self) -> None:
        """Let the records go: Faust keeps the last event of a stream until the next one comes."""
        self.records = []
        self.in_flight = None

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Slice {self.tp.topic}/{self.tp.partition} [{self.base}, {self.next_offset})>"


@dataclass(frozen=True, slots=True)
class Break:
    """The reason why records could not be joined to the chain.

    ``stale``: the partition is not ours to read now. ``refetch``: they do not begin where they should; seek to
    ``expected`` and look again. ``hole``: they did so twice, so the log itself has no records in between.
    ``rewound``: the log answers with older offsets than asked for, so it is not the log that was read before.
    """

    kind: Literal["stale", "refetch", "hole", "rewound"]
    expected: int = -1
    got: int = -1


class Chain:
    """The offset at which each partition's next slice must begin, and the slices that are still valid.

    A partition is armed with an offset, after which ``link`` accepts exactly the records that follow on. ``void``
    disarms it and makes every slice cut before invalid: they belong to an assignment that is over.
    """

    def __init__(self) -> None:
        self._next: dict[TP, int] = {}
        self._epochs: dict[TP, int] = {}
        self._seen: dict[TP, tuple[int, int]] = {}
        self._counter = 0

    def __contains__(self, tp: TP) -> bool:
        return tp in self._next

    @property
    def armed(self) -> dict[TP, int]:
        """The partitions that may be fetched, and their next offsets."""
        return self._next

    def arm(self, tp: TP, offset: int) -> None:
        """Expect ``offset`` next; needs a ``void`` before it, so that nothing older is delivered beside it."""
        assert tp in self._epochs
        assert tp not in self._next
        self._next[tp] = offset

    def void(self, tps: Iterable[TP]) -> None:
        """Disarm the partitions; the slices that were cut from them are no longer current."""
        for tp in tps:
            self._counter += 1
            self._epochs[tp] = self._counter
            self._next.pop(tp, None)
            self._seen.pop(tp, None)

    def epoch(self, tp: TP) -> int:
        """Return the number of the partition's present validity; every ``void`` changes it."""
        return self._epochs.get(tp, 0)

    def is_current(self, piece: Slice) -> bool:
        """Return True if the slice was cut since the partition was last voided, and may still be applied."""
        return self._epochs.get(piece.tp) == piece.epoch

    def link(self, tp: TP, records: list[SlicedRecord]) -> Slice | Break:
        """Return the records as the next slice, or why they are not."""
        base = self._next.get(tp)
        if base is None:
            return Break("stale")
        first = records[0].offset
        if first != base:
            # Either fetched before a seek, or there is nothing at ``base``. The same answer twice means the latter.
            if self._seen.get(tp) != (base, first):
                self._seen[tp] = (base, first)
                return Break("refetch", base, first)
            return Break("rewound" if first < base else "hole", base, first)
        return self._cut(tp, base, records)

    def bridge(self, tp: TP, records: list[SlicedRecord]) -> Slice | Break:
        """Accept records behind a hole that was no loss: the slice's base is where the hole begins."""
        base = self._next.get(tp)
        return Break("stale") if base is None else self._cut(tp, base, records)

    def _cut(self, tp: TP, base: int, records: list[SlicedRecord]) -> Slice:
        self._seen.pop(tp, None)
        piece = Slice(tp, base, records, self._epochs[tp])
        self._next[tp] = piece.next_offset
        return piece


def split(
    records: Sequence[SlicedRecord], max_records: int = SLICE_RECORDS, max_bytes: int = SLICE_BYTES
) -> list[list[SlicedRecord]]:
    """Cut a fetched run into pieces of at most so many records; a piece ends once it has reached ``max_bytes``."""
    pieces: list[list[SlicedRecord]] = []
    start = size = 0
    for i, record in enumerate(records):
        size += len(record.value or b"")
        if size >= max_bytes or i - start + 1 >= max_records:
            pieces.append(list(records[start : i + 1]))
            start, size = i + 1, 0
    if start < len(records):
        pieces.append(list(records[start:]))
    return pieces


def values_size(records: Sequence[SlicedRecord]) -> int:
    """Return how many bytes the values of records have."""
    return sum([len(record.value or b"") for record in records])


def round_robin(fetched: Iterable[tuple[TP, list[list[SlicedRecord]]]]) -> list[tuple[TP, list[SlicedRecord]]]:
    """Return the pieces of all partitions, the first of each, then the second of each, so that none starves."""
    numbered = [(number, tp, piece) for tp, pieces in fetched for number, piece in enumerate(pieces)]
    numbered.sort(key=lambda item: item[0])
    return [(tp, piece) for _, tp, piece in numbered]


def cut_events(records: Sequence[SlicedRecord], start: int, limit: int) -> tuple[int, int]:
    """Return the end of the longest stretch from ``start`` with at most ``limit`` events, and how many it has.

    Control messages (no key) do not count, and those behind the last event belong to the stretch.
    """
    events = 0
    for i in range(start, len(records)):
        if records[i].key is not None:
            if events == limit:
                return i, events
            events += 1
    return len(records), events


def rewound(tp: TP, expected: int, got: int) -> MismatchError:
    """Return the fault of a log that is shorter than what was read from it."""
    return MismatchError(
        f"The topic {tp.topic} is not the one that was read before: partition {tp.partition} was read to offset "
        f"{expected}, and now stands at {got}.",
        "If it was re-created, read it with another SINK_GROUP into another SINK_SCHEMA.",
    )
