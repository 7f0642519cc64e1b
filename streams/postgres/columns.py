"""Record rows as columns, in the two forms in which Postgres gets them: joined texts, and arrays. Pure.

asyncpg asks of every element of an array whether it is a container: 5 µs a row. A joined text is one value, and the
server splits it again (migration 0009). Records are bytes all the way: as ``str`` one emoji makes a whole text of them
take four bytes a letter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

#: The unit separator (U+001F) between the parts of a text. Valid JSON holds it only escaped; no key, rev or CID has it.
SEPARATOR: Final = "\x1f"
_SEPARATOR_BYTE: Final = SEPARATOR.encode()

#: did, collection, rkey, rev, cid, record (JSON in UTF-8), seq, time (µs), offset, and True where the key is expected
#: to be new to the table; cid and record are None for a tombstone.
Row = tuple[str, str, str, str, str | None, bytes | None, int | None, int, int, bool]


class RecordColumns(NamedTuple):
    """Record rows as columns, in the order of ``Row``."""

    dids: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    rkeys: tuple[str, ...] = ()
    revs: tuple[str, ...] = ()
    cids: tuple[str | None, ...] = ()
    bodies: tuple[bytes | None, ...] = ()
    seqs: tuple[int | None, ...] = ()
    times: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    expected_new: tuple[bool, ...] = ()


class Grouped(NamedTuple):
    """Rows as columns. For each stage the rows that are expected to be new, then the others, both in key order.

    ``ends``: the index of each group's end, two for a stage.
    """

    columns: RecordColumns
    ends: tuple[int, ...]


class JoinedColumns(NamedTuple):
    """A text for each column and group. Numbers are joined by commas; an empty part is NULL."""

    dids: list[str]
    collections: list[str]
    rkeys: list[str]
    revs: list[str]
    cids: list[str]
    bodies: list[bytes]
    seqs: list[str]
    times: list[str]


def group(stages: Iterable[Iterable[Row]], *, expect_new: bool) -> Grouped:
    """Return the rows of the stages in groups. Without ``expect_new`` no row is expected to be new."""
    rows: list[Row] = []
    ends: list[int] = []
    for stage in stages:
        ordered = sorted(stage)
        if expect_new:
            rows += [row for row in ordered if row[9]]
            ends.append(len(rows))
            rows += [row for row in ordered if not row[9]]
        else:
            ends.append(len(rows))
            rows += ordered
        ends.append(len(rows))
    return Grouped(RecordColumns(*zip(*rows, strict=True)), tuple(ends))


def join(grouped: Grouped) -> JoinedColumns | None:
    """Return the columns as joined texts. Return None where a record holds the separator: that JSON is not valid."""
    joined = JoinedColumns([], [], [], [], [], [], [], [])
    columns, begin = grouped.columns, 0
    for end in grouped.ends:
        bodies = _SEPARATOR_BYTE.join([body or b"" for body in columns.bodies[begin:end]])
        if bodies.count(_SEPARATOR_BYTE) != max(end - begin - 1, 0):
            return None
        joined.dids.append(SEPARATOR.join(columns.dids[begin:end]))
        joined.collections.append(SEPARATOR.join(columns.collections[begin:end]))
        joined.rkeys.append(SEPARATOR.join(columns.rkeys[begin:end]))
        joined.revs.append(SEPARATOR.join(columns.revs[begin:end]))
        joined.cids.append(SEPARATOR.join([cid or "" for cid in columns.cids[begin:end]]))
        joined.bodies.append(bodies)
        joined.seqs.append(",".join(["" if seq is None else str(seq) for seq in columns.seqs[begin:end]]))
        joined.times.append(",".join(map(str, columns.times[begin:end])))
        begin = end
    return joined
