"""The hops of an event's way inside of our processes: which code belongs to which. Pure.

A sample is a stack of functions, the innermost first. It belongs to the hop of the first of them that is named here; so
a library's function belongs to whoever has called it, unless the library itself is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

#: A function of a stack: its file and its name.
Function = tuple[str, str]

#: The hop of samples that are of the start: imports.
START: Final = "start"
#: The hop of everything that is not named.
REST: Final = "loops, timers, page"

FRAMES: Final = "websocket to frame"
OBJECTS: Final = "two objects by libipld, checks, seq, time, continuity"
RECORDS: Final = "block, hash, record, JSON"
APPEND: Final = "partition, append"
SEND: Final = "zstd, send, acknowledge"
FETCH: Final = "fetch, unzip, records"
MERGE: Final = "envelope, checks, merge, sort"
APPLY: Final = "encode for Postgres and send"

#: By process: a part of a file's path, the function (None: any of the file), and the hop. The first that fits counts.
_PLACES: Final[Mapping[str, tuple[tuple[str, str | None, str], ...]]] = {
    "ingest": (
        ("/protocol/frames.py", "search_block", RECORDS),
        ("/protocol/frames.py", "block", RECORDS),
        ("/protocol/frames.py", "_scan", RECORDS),
        ("/protocol/frames.py", None, OBJECTS),
        ("/protocol/events.py", "frame_seq", OBJECTS),
        ("/protocol/events.py", "frame_time", OBJECTS),
        ("/protocol/events.py", None, RECORDS),
        ("/protocol/atjson.py", None, RECORDS),
        ("/protocol/", None, OBJECTS),
        ("/firehose/frame_cutter.py", None, FRAMES),
        ("/firehose/relay.py", None, FRAMES),
        ("/websockets/", None, FRAMES),
        ("/asyncio/selector_events.py", "_read_ready__data_received", FRAMES),
        ("/sources/firehose/", None, OBJECTS),
        ("/kafka/publisher.py", "add", APPEND),
        ("/kafka/topic.py", "partition_for", APPEND),
        ("/kafka/topic.py", "murmur2", APPEND),
        ("/kafka/", None, SEND),
        ("/aiokafka/", None, SEND),
    ),
    "worker": (
        ("/worker/fetching.py", None, FETCH),
        ("/aiokafka/", None, FETCH),
        ("/postgres/batch.py", None, MERGE),
        ("/protocol/", None, MERGE),
        ("/streams/messages.py", None, MERGE),
        ("/streams/postgres/", None, APPLY),
        ("/asyncpg/", None, APPLY),
    ),
}
#: Functions in which a thread waits, each with its file.
_WAITING: Final = (
    ("/selectors.py", "select"), ("/threading.py", "wait"), ("/threading.py", "_wait_for_tstate_lock"),
    ("/concurrent/futures/thread.py", "_worker"), ("/streams/runtime/loop_guard.py", "_watch"),
)  # fmt: skip


def hop_of(process: str, stack: Iterable[Function]) -> str:
    """Return the hop of a sample of one of our processes (``ingest`` or ``worker``)."""
    found = REST
    for file, function in stack:
        if "importlib._bootstrap" in file:
            return START
        if found is REST:
            found = next(
                (hop for part, name, hop in _PLACES[process] if part in file and name in (None, function)), REST
            )
    return found


def is_waiting(innermost: Function) -> bool:
    """Return True if a thread whose innermost function this is waits, so that another one was running."""
    file, function = innermost
    return any(file.endswith(end) and function == name for end, name in _WAITING)


class Snapshot(NamedTuple):
    """The counts of a process so far, by hop, at a moment of the monotonic clock."""

    at: float
    counts: Mapping[str, float]


def shares(snapshots: Sequence[Snapshot], began: float, ended: float) -> dict[str, float]:
    """Return the hops' shares of what a process counted between two moments, imports aside."""
    before = next((snapshot.counts for snapshot in reversed(snapshots) if snapshot.at <= began), {})
    after = next((snapshot.counts for snapshot in reversed(snapshots) if snapshot.at <= ended), {})
    counted = {hop: count - before.get(hop, 0.0) for hop, count in after.items() if hop != START}
    total = sum(counted.values())
    return {hop: count / total for hop, count in counted.items()} if total else {}
