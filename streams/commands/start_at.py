"""Where in the topic to begin to read: what ``--from`` says, and the offsets that it comes down to.

A TIME is that of events: their frames' time at the relay. What the topic can be searched by is when a message was
written, which is later, and in a backfill by days; so the search begins MARGIN before TIME, for clocks that differ.
Nothing of TIME or later is left out, and what is older may be read too: all of it, where it was written since.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.errors import SettingsError
from streams.text import EPOCH, parse_moment

#: By how much the clock of the ingest may be behind the relay's; a rev that is further ahead is refused (batch.py).
MARGIN: Final = dt.timedelta(hours=1)
#: The highest offset and the most partitions that are worth looking at.
_OFFSET, _PARTITION = 2**63 - 1, 2**31 - 1
_PAIR: Final = re.compile(r"\s*(\d{1,10})\s*:\s*(\d{1,19})\s*")
_FORMS: Final = "earliest, a time (2026-01-31 or 2026-01-31T12:00:00Z), or offsets by partition (0:1200,1:33)"


@dataclass(frozen=True, slots=True)
class StartAt:
    """A beginning: ``offsets`` of some partitions, or a ``time`` (UTC); with neither the earliest message."""

    time: dt.datetime | None = None
    offsets: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The offset of each partition that was meant, and what is to be said of it."""

    offsets: dict[int, int]
    notes: tuple[str, ...] = ()


def parse_start(text: str, now: dt.datetime) -> StartAt:
    """Return what ``--from`` means. Raises SettingsError."""
    text = text.strip()
    if text.lower() == "earliest":
        return StartAt()
    if text.isdecimal():
        raise SettingsError(
            f"--from {text} does not say of which partition that offset is",
            f"give PARTITION:OFFSET, as in 0:{text[:19]}.",
        )
    if all(_PAIR.fullmatch(pair) for pair in text.split(",")):
        return StartAt(offsets=_offsets(text))
    try:
        moment = parse_moment(text)
    except ValueError:
        raise SettingsError(f"--from takes {_FORMS}.") from None
    if moment < EPOCH:
        raise SettingsError(
            f"--from {moment.isoformat()[:19]}Z is before 1970: no event is that old.", "Give earliest."
        )
    if moment > now:
        raise SettingsError(f"--from {moment:%Y-%m-%dT%H:%M:%SZ} lies in the future: no event is that new.")
    return StartAt(time=moment)


def _offsets(text: str) -> dict[int, int]:
    found: dict[int, int] = {}
    for pair in text.split(","):
        partition, offset = map(int, pair.split(":"))
        if partition > _PARTITION or offset > _OFFSET:
            raise SettingsError(f"--from {pair.strip()} is not a partition and an offset: the numbers are too large.")
        if partition in found:
            raise SettingsError(f"--from names the partition {partition} twice.")
        found[partition] = offset
    return found


async def resolve(
    consumer: AIOKafkaConsumer, log_starts: Mapping[TopicPartition, int], start: StartAt, *, other: bool = True
) -> Resolved:
    """Return the offsets at which to begin in the topic, whose log begins at ``log_starts``, within the log.

    A partition for which no offset is given begins at its log's start, or without ``other`` is left out. A time after
    all that a partition holds is its end. Raises SettingsError for a partition that is not there, or a later offset.
    """
    by_number = {tp.partition: tp for tp in log_starts}
    ends: Mapping[TopicPartition, int] = await consumer.end_offsets(list(log_starts))
    if start.time is not None:
        since = max(int((start.time - MARGIN).timestamp() * 1000), 0)
        found = await consumer.offsets_for_times(dict.fromkeys(log_starts, since))
        at = {tp: found[tp].offset if found.get(tp) is not None else ends[tp] for tp in log_starts}
        return Resolved({tp.partition: max(offset, log_starts[tp]) for tp, offset in at.items()})
    given = start.offsets or {}
    offsets = {n: log_starts[tp] for n, tp in by_number.items() if other or start.offsets is None}
    notes = []
    for number, offset in given.items():
        tp = by_number.get(number)
        if tp is None:
            raise SettingsError(f"--from names the partition {number}: the topic has 0 to {len(by_number) - 1}.")
        if offset > ends[tp]:
            raise SettingsError(f"--from {number}:{offset} is beyond the end of {tp.topic}/{number}, {ends[tp]}.")
        if offset < log_starts[tp]:
            notes.append(f"{tp.topic}/{number} begins at {log_starts[tp]} by now: from there, not from {offset}")
        offsets[number] = max(offset, log_starts[tp])
    return Resolved(offsets, tuple(notes))
