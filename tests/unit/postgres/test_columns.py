"""Record rows as joined texts, read back as the schema's function splits them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.postgres.columns import SEPARATOR, JoinedColumns, Row, group, join

KEYS = st.tuples(*[st.text("abc:.", min_size=1, max_size=4)] * 3)
REST = st.tuples(
    st.text("rev", min_size=1, max_size=3), st.none() | st.text("cid", min_size=1, max_size=3),
    st.none() | st.just(b'{"t": "a,b\\u001f"}'), st.none() | st.integers(0, 1 << 62), st.integers(0, 1 << 62),
    st.integers(0, 1 << 62), st.booleans(),
)  # fmt: skip
STAGES = st.lists(st.dictionaries(KEYS, REST, max_size=6), max_size=4)


def split(joined: JoinedColumns, number: int) -> list[tuple[Any, ...]]:
    """Return the rows of one group as Postgres reads them: an empty part is NULL, a short column is filled with it."""

    def parts(text: str, by: str) -> list[str | None]:
        return [part or None for part in text.split(by)] if text else []

    texts: list[list[Any]] = [parts(column[number], SEPARATOR) for column in joined[:5]]
    texts.append([None if t is None else t.encode() for t in parts(joined.bodies[number].decode(), SEPARATOR)])
    numbers = [[None if n is None else int(n) for n in parts(column[number], ",")] for column in joined[6:]]
    columns: list[list[Any]] = [*texts, *numbers]
    longest = max(map(len, columns))
    return list(zip(*[column + [None] * (longest - len(column)) for column in columns], strict=True))


@given(STAGES, st.booleans())
def test_every_row_comes_back_in_its_stage(stages: list[dict[Any, Any]], expect_new: bool) -> None:
    rows: list[list[Row]] = [[(*key, *rest) for key, rest in stage.items()] for stage in stages]
    grouped = group(rows, expect_new=expect_new)
    joined = join(grouped)
    assert joined is not None
    assert {len(column) for column in joined} == {len(grouped.ends)} == {2 * len(stages)}
    for number, stage in enumerate(rows):
        new = sorted(row for row in stage if expect_new and row[9])
        others = sorted(row for row in stage if not (expect_new and row[9]))
        assert split(joined, 2 * number) == [row[:8] for row in new]
        assert split(joined, 2 * number + 1) == [row[:8] for row in others]
    assert [*zip(*grouped.columns, strict=True)] == [
        row for stage in rows for row in sorted(stage, key=lambda row: (not (expect_new and row[9]), row))
    ]


@pytest.mark.parametrize("body", [b'{"t": "\x1f"}', b'\x1f{"t": 1}', b'{"t": 1}\x1f'])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_record_with_a_separator_goes_as_an_array(body: bytes, number: int) -> None:
    rows: list[Row] = [(f"did{i}", "c", "r", "v", "cid", b"{}", None, 1, i, False) for i in range(3)]
    assert join(group([rows], expect_new=True)) is not None
    did, collection, rkey, rev, cid, _, *rest = rows[number]
    rows[number] = (did, collection, rkey, rev, cid, body, *rest)  # type: ignore[assignment]
    assert join(group([rows], expect_new=True)) is None
