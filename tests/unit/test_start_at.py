"""What ``--from`` takes, and what it refuses with a sentence."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import SettingsError
from streams.kafka.start_at import StartAt, parse_start

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def test_the_three_forms() -> None:
    assert parse_start(" Earliest ", NOW) == StartAt()
    assert parse_start("0:1200, 1:33", NOW) == StartAt(offsets={0: 1200, 1: 33})
    assert parse_start("2026-01-31", NOW) == StartAt(time=dt.datetime(2026, 1, 31, tzinfo=dt.UTC))
    assert parse_start("2026-01-31T12:00:00+02:00", NOW) == StartAt(time=dt.datetime(2026, 1, 31, 10, tzinfo=dt.UTC))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1200", "give PARTITION:OFFSET, as in 0:1200"),
        ("0:1,0:2", "names the partition 0 twice"),
        ("0:9223372036854775808", "too large"),
        ("2026-06-02", "lies in the future"),
        ("yesterday", "--from takes earliest"),
        ("0:-1", "--from takes earliest"),
        ("", "--from takes earliest"),
    ],
)
def test_refusals(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parse_start(text, NOW)


@given(offsets=st.dictionaries(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), min_size=1, max_size=5))
def test_offsets_are_taken_as_they_are(offsets: dict[int, int]) -> None:
    text = ",".join(f"{partition}:{offset}" for partition, offset in offsets.items())
    assert parse_start(text, NOW) == StartAt(offsets=offsets)


@given(text=st.text())
def test_anything_else_is_a_sentence(text: str) -> None:
    try:
        parse_start(text, NOW)
    except SettingsError as error:
        assert "--from" in str(error)
