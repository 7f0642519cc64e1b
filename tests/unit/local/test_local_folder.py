"""LOCAL_DIR: every name that Kafka and Postgres can take, and a sentence for every other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.errors import SettingsError
from streams.local.stack import Stack, check_folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("com,ma", "a comma"), (",", "a comma"), ("a/b,c/d", "a comma"), ("new\nline", "a line's end"),
        ("carriage\rreturn", "a carriage return"), (os.fsdecode(b"lat\xe9"), "bytes that are not UTF-8"),
        ("/".join(["l" * 200] * 5), "900 are the most"), ("/".join(["ü" * 100] * 5), "900 are the most"),
    ],
)  # fmt: skip
def test_a_folder_that_kafka_or_postgres_cannot_take(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^LOCAL_DIR: .*another folder\.$") as refusal:
        Stack(tmp_path / name).up()
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    str(refusal.value).encode()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "sp ace ü", "l" * 90 + "/" + "m" * 70, "quo'te", 'dou"ble', "back\\slash", "per%cent", "dollar$HOME", "tab\tx",
        "smile\U0001f600", "${env:HOME}", "a#b?c*d:e=f;g|h[i]j~k", "-dash", " lead", "trail ", "%d%i", "é",
    ],
)  # fmt: skip
def test_a_folder_that_both_can_take(name: str, tmp_path: Path) -> None:
    """A stack was brought up in each of them, by hand: it takes a minute."""
    check_folder(tmp_path / name)


def test_what_is_no_folder_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "below", tmp_path / ("n" * 256)):
        with pytest.raises(SettingsError, match=r"LOCAL_DIR: the folder .* cannot be used"):
            Stack(folder).up()
