"""The rebuilt schema held against the live one, row by row, in one snapshot in which both stand at the same offsets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from streams.kafka.topic import partition_for
from streams.maintenance.rebuild.schema import PartitionStart, both
from streams.maintenance.rebuild.swap import Names
from streams.postgres.database import FOR_EVER, Connection
from streams.text import printable

#: Differences that are shown of each kind and reason.
SHOWN: Final = 5
#: Kinds in which something that the live schema has is not in the rebuilt one.
_LACKING: Final = ("missing", "older")

PURGED: Final = "its account was deleted"
FILTERED: Final = "BACKFILL_COLLECTIONS leaves it out"
BEFORE: Final = "it is older than the point where the rebuild begins"
UNEXPLAINED: Final = "the topic should hold it"


@dataclass(slots=True)
class Comparison:
    """The differences: rows by (table, kind, reason), and some of them as lines."""

    found: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def lacking(self, *reasons: str) -> int:
        """Return how many rows, or versions of rows, the rebuilt schema lacks for one of these reasons."""
        return sum(n for (_, kind, reason), n in self.found.items() if kind in _LACKING and reason in reasons)


def is_before(
    did: str, time_us: int | None, seq: int | None, begins: Mapping[int, PartitionStart], partitions: int
) -> bool:
    """Return True where an event of the account, at that time and seq, is before the rebuild's beginning."""
    first = begins.get(partition_for(did.encode(), partitions))
    if first is None or first.offset == 0:
        return False
    if first.time is None or time_us is None:  # nothing is left of the partition
        return first.time is None
    # Times are not exact, seqs do not compare between relays: both must say so.
    return time_us <= first.time and (seq is None or first.seq is None or seq < first.seq)


async def compare(
    connection: Connection,
    names: Names,
    begins: Mapping[int, PartitionStart],
    partitions: int,
    keep: Callable[[str], bool] | None,
) -> Comparison:
    """Compare the schemas within the connection's transaction. It reads both of them whole."""
    result = Comparison()
    for row in await connection.fetch(both("compare_counts", names.live, names.rebuilt), names.topic, timeout=FOR_EVER):
        apart = ""
        if row["only_live"] or row["only_rebuilt"]:
            apart = f"; {row['only_live']:,} only in {names.live}, {row['only_rebuilt']:,} only in {names.rebuilt}"
        result.lines.append(
            f"{row['name']}: {row['live']:,} in {names.live}, {row['rebuilt']:,} in {names.rebuilt}{apart}"
        )
    for table in ("records", "actors"):
        statement = both(f"compare_{table}", names.live, names.rebuilt)
        async for row in connection.cursor(statement, prefetch=1000, timeout=FOR_EVER):
            reason = _reason(row, begins, partitions, keep)
            key = (table, row["kind"], reason)
            result.found[key] += 1
            if result.found[key] <= SHOWN:
                result.lines.append(_line(table, row, reason))
    for (table, kind, reason), count in sorted(result.found.items()):
        if count > SHOWN:
            result.lines.append(f"{table}, {kind}{_because(reason)}: {count:,} in all")
    return result


def _reason(
    row: asyncpg.Record, begins: Mapping[int, PartitionStart], partitions: int, keep: Callable[[str], bool] | None
) -> str:
    if row["kind"] not in _LACKING:
        return ""
    if row["purged"]:
        return PURGED
    if keep is not None and row["collection"] is not None and not keep(row["collection"]):
        return FILTERED
    time_us = None if row["time"] is None else round(row["time"].timestamp() * 1_000_000)
    return BEFORE if is_before(row["did"], time_us, row["seq"], begins, partitions) else UNEXPLAINED


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _line(table: str, row: asyncpg.Record, reason: str) -> str:
    name = "/".join(printable(row[part]) for part in ("did", "collection", "rkey") if row[part] is not None)
    kind = row["kind"]
    if kind == "different":
        kind = f"different in {row['columns']}"
    elif table == "records" and kind in ("older", "newer"):
        kind = f"{kind}: rev {printable(row['rev'])}, live {printable(row['live_rev'])}"
    return f"{table}, {kind}: {name}{_because(reason)}"
