"""The Faust tables: progress per partition and counts per collection, for looking.

Advisory, never the truth, which is in Postgres: a table and a transaction are not atomic together. Each value is the
absolute state of one partition, written at most once a second, so that a repeated or a lost write does no harm.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import faust
from faust.streams import _current_event
from faust.types import TP
from faust.types.tuples import Message

if TYPE_CHECKING:  # the sink imports asyncpg, and commands that only list need nothing of it
    from streams.sink_postgres import Written

#: Collections are hostile strings without end: the first so many of a partition are counted by name.
MAX_COLLECTIONS: Final = 500
OTHERS: Final = "(others)"

#: The JSON form of a table's value. No value_type: with one, Faust's recovery hangs for ever (docs/gotchas.md).
Value = dict[str, Any]


def merge_counts(held: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of both; names beyond MAX_COLLECTIONS go under OTHERS."""
    counts = dict(held)
    for name, count in new.items():
        key = name if name in counts or len(counts) < MAX_COLLECTIONS else OTHERS
        counts[key] = counts.get(key, 0) + count
    return counts


class Tables:
    """Both tables, and their changes since they were last written."""

    def __init__(self, app: faust.App, topic: str, partitions: int) -> None:
        self._app = app
        self._topic = topic
        self.progress = self._table("progress", partitions, "The progress of each partition: counts, watermark.")
        self.collections = self._table("collections", partitions, "Rows written by collection, for each partition.")
        self._changed: dict[int, Written] = {}
        self._counts: dict[int, dict[str, int]] = {}

    def changelogs(self) -> list[tuple[str, Mapping[str, str]]]:
        """Return the changelogs' names, and the settings of each as a topic."""
        tables = (self.progress, self.collections)
        return [(table.changelog_topic.get_topic_name(), table.extra_topic_configs) for table in tables]

    def _table(self, name: str, partitions: int, text: str) -> Any:  # noqa: ANN401 (faust.Table is loosely typed)
        # As in the topic itself (streams/kafka/topic.py): the broker refuses a clock that is an hour ahead of its own.
        stamped = {"message.timestamp.type": "LogAppendTime"}
        return self._app.Table(name, key_type=str, partitions=partitions, help=text, extra_topic_configs=stamped)

    def set_partitions(self, partitions: int) -> None:
        """Set the topic's own number, before the worker starts: a changelog has as many partitions as its source."""
        for table in (self.progress, self.collections):
            table.partitions = partitions
            table.changelog_topic.partitions = partitions

    def note(self, partition: int, written: Written) -> None:
        """Remember what a transaction did; written by the next ``flush``."""
        self._changed[partition] = written
        if written.by_collection:
            self._counts[partition] = merge_counts(self._counts.get(partition, {}), written.by_collection)

    @property
    def pending(self) -> bool:
        """True while something waits for ``flush``."""
        return bool(self._changed or self._counts)

    def flush(self, mine: Iterable[int]) -> None:
        """Write what has changed in these partitions, and forget the rest: others write theirs."""
        if not self._are_known():
            return  # later: the counts are kept
        changed, self._changed = self._changed, {}
        counts, self._counts = self._counts, {}
        for partition in mine:
            if partition in changed:
                self._set(self.progress, partition, _progress(changed[partition]))
            if partition in counts:
                held = self.collections.get(str(partition)) or {}
                self._set(self.collections, partition, merge_counts(held, counts[partition]))

    def _are_known(self) -> bool:
        """Return True once the consumer has seen the changelogs. Before that, just after a rebalance, Faust raises."""
        count = self._app.consumer.topic_partitions
        source = count(self._topic)
        return bool(source) and all(
            count(table.changelog_topic.get_topic_name()) == source for table in (self.progress, self.collections)
        )

    def _set(self, table: Any, partition: int, value: Value) -> None:  # noqa: ANN401
        """Set a key in its partition. Faust takes the partition from the current event, so there must be one."""
        tp = TP(self._topic, partition)
        message = Message(
            self._topic, partition, -1, timestamp=0.0, timestamp_type=0, headers=None, key=None, value=None,
            checksum=None, tp=tp,
        )  # fmt: skip
        event = self._app.create_event(None, None, None, message)
        token = _current_event.set(weakref.ref(event))
        try:
            table[str(partition)] = value
        finally:
            _current_event.reset(token)


def _progress(written: Written) -> Value:
    mark = written.watermark
    return {
        "received": written.total_received,
        "applied": written.total_applied,
        "skipped": written.total_skipped,
        "dead": written.total_dead,
        "watermark_seq": mark.seq if mark else None,
        "watermark_time": mark.time.isoformat() if mark and mark.time else None,
    }
