"""What ``--from`` takes, and what it refuses with a sentence."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.commands.start_at import StartAt, parse_start
from streams.errors import SettingsError
from streams.ingest import main as ingest
from streams.settings import Settings, load_settings
from streams.text import parse_moment

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


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01",
        "1969-12-31",
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "1000-06-01",
        "1970-01-01T00:00+01:00",
    ],
)
def test_a_time_of_before_1970_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is before 1970: no event is that old"):
        parse_start(text, NOW)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "10000-01-01", "999999999"])
def test_a_time_outside_of_the_calendar_is_a_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match="--from"):
        parse_start(text, NOW)
    with pytest.raises(ValueError, match=r"."):
        parse_moment(text)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("0001-01-01", "before 1970"), ("0001-01-01T00:00:00+23:59", "is not a valid time"),
        ("9999-12-31", "in the future"),
        ("9999-12-31T23:59:59-23:59", "is not a valid time"), ("yesterday", "is not a valid time"),
        ("1969-12-31T23:59:59Z", "before 1970"),
    ],
)  # fmt: skip
def test_what_the_ingest_is_told_of_time(argument: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        ingest(["--from-time", argument])
    assert end.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("days", ["99999999", "9" * 30, "36501", "-2"])
def test_more_days_than_a_century_are_refused(
    days: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ingest(["--days", days]) == 2
    assert "BACKFILL_DAYS" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if field.annotation in (int, float)]
)
@pytest.mark.parametrize("value", ["9" * 30, "-" + "9" * 30, "1e400", "nan"])
def test_a_number_without_end_is_refused(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=name.upper()):
        load_settings(**{name: value})
