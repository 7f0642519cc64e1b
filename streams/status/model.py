"""One deployment as a person wants to see it: what is covered, where each partition stands, who works or waits and why.

Read from Kafka and Postgres only, so that it says the same from anywhere. ``status``, the live page and the metrics of
the whole deployment show this and nothing else.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec

from streams.status.process import IngestState, WorkerState


class Partition(msgspec.Struct, frozen=True):
    """A partition: the log is from ``begin`` to ``end``, the sink applies ``next_offset`` next; ``lag`` in messages."""

    partition: int
    begin: int
    next_offset: int
    end: int
    lag: int
    watermark_seq: int | None
    watermark_time: dt.datetime | None
    worker: str | None


class Process(msgspec.Struct, frozen=True):
    """A worker or an ingest: where it runs, whether it is there, and what it last said of itself."""

    kind: Literal["worker", "ingest"]
    host: str
    pid: int
    version: str
    alive: bool
    started_at: dt.datetime
    seen_at: dt.datetime
    ended_at: dt.datetime | None
    worker: WorkerState | None = None
    ingest: IngestState | None = None


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of time: in Postgres, in Kafka only, not covered, or not kept by the relay. For the coverage strip."""

    kind: Literal["covered", "pending", "to come", "gap", "not kept"]
    begin: dt.datetime
    end: dt.datetime
    reason: str = ""


class Counted(msgspec.Struct, frozen=True):
    """A name and how many. The name is a stranger's where it is a collection or a reason.

    Of a collection: rows that the workers sent to Postgres, not rows that stand there.
    """

    name: str
    count: int


class RecentLetter(msgspec.Struct, frozen=True):
    """One of the last dead letters. Everything but place and time is a stranger's."""

    partition: int
    offset: int
    at: dt.datetime
    did: str | None
    collection: str | None
    reason: str


class Paused(msgspec.Struct, frozen=True):
    """The pause that holds."""

    since: dt.datetime
    by: str
    reason: str
    ingest: bool


class Rates(msgspec.Struct, frozen=True):
    """Events (ingest: from the relay) and messages (Kafka) a second, over the last ten seconds; None: not known yet."""

    relay: float | None
    kafka: float | None
    postgres: float | None


class Status(msgspec.Struct, frozen=True):
    """A deployment at one moment. ``received`` = ``applied`` + ``skipped`` + ``dead``, since the schema began.

    ``odd_claims``: #identity, #account and #sync that claim a time more than an hour from their place in the stream.
    """

    at: dt.datetime
    version: str
    topic: str
    schema: str
    group: str
    relay: str | None
    run: int | None
    plan: str | None
    asked_days: int | None
    asked_from: dt.datetime | None
    covered_from: dt.datetime | None
    covered_to: dt.datetime | None
    head: dt.datetime | None
    cursor: str | None
    partitions: tuple[Partition, ...]
    lag: int
    received: int
    applied: int
    skipped: int
    dead: int
    dead_letters: int
    gaps: int
    rates: Rates
    seconds_left: float | None
    paused: Paused | None
    processes: tuple[Process, ...]
    coverage: tuple[Stretch, ...]
    collections: tuple[Counted, ...]
    last_letters: tuple[RecentLetter, ...]
    troubles: tuple[str, ...]
    odd_claims: int = 0
