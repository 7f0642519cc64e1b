"""Sixty .env files as editors and people leave them: understood, or a sentence with the file and the line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.environment.dotenv_file import LARGEST, decode, read_dotenv
from streams.errors import SettingsError
from streams.settings import load_settings, setting_names

TEXT = "# a comment\nBACKFILL_DAYS=7\n"
#: Each sets BACKFILL_DAYS to 7.
UNDERSTOOD = {
    "plain": TEXT.encode(),
    "without an end": b"BACKFILL_DAYS=7",
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "CR": TEXT.replace("\n", "\r").encode(),
    "mixed ends": b"# x\r\n\rFOO=1\nBACKFILL_DAYS=7\r",
    "UTF-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "a mark before our name": codecs.BOM_UTF8 + b"BACKFILL_DAYS=7",
    "UTF-16 LE": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16 BE": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "UTF-16 LE, CRLF": codecs.BOM_UTF16_LE + TEXT.replace("\n", "\r\n").encode("utf-16-le"),
    "UTF-16 LE without a mark": TEXT.encode("utf-16-le"),
    "UTF-16 BE without a mark": TEXT.encode("utf-16-be"),
    "UTF-32": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    "UTF-32 BE": codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    "export": b"export BACKFILL_DAYS=7\n",
    "spaces around": b"  BACKFILL_DAYS = 7  \n",
    "a tab": b"\tBACKFILL_DAYS\t=\t7\n",
    "quotes": b'BACKFILL_DAYS="7"\n',
    "single quotes": b"BACKFILL_DAYS='7'\n",
    "quotes in quotes": b"BACKFILL_DAYS='\"7\"'\n",
    "spaces in quotes": b'BACKFILL_DAYS=" 7 "\n',
    "a comment behind": b"BACKFILL_DAYS=7 # days\n",
    "a comment behind quotes": b'BACKFILL_DAYS="7" # days\n',
    "a hash in another value": b"COLOUR=#fff\nBACKFILL_DAYS=7\n",
    "twice": b"BACKFILL_DAYS=3\nBACKFILL_DAYS=7\n",
    "small letters": b"backfill_days=7\n",
    "empty lines": b"\n\n\n  \n\t\nBACKFILL_DAYS=7\n\n",
    "a formfeed between": b"FOO=1\n\x0c\nBACKFILL_DAYS=7\n",
    "an empty value": b"KAFKA_TOPIC=\nBACKFILL_DAYS=7\n",
    "a name alone": b"HOME\nBACKFILL_DAYS=7\n",
    "a name alone, exported": b"export PATH\nBACKFILL_DAYS=7\n",
    "expanded": b"DAYS=7\nBACKFILL_DAYS=${DAYS}\n",
    "expanded with a default": b"BACKFILL_DAYS=${NO_SUCH_NAME:-7}\n",
    "letters of every script": "GREETING=Привет, мир\n# ü\nBACKFILL_DAYS=7\n".encode(),
    "a value over lines": b'CERT="-----BEGIN\nabc=\n-----END"\nBACKFILL_DAYS=7\n',
    "a value over lines, single": b"KEY='a\nb'\nBACKFILL_DAYS=7\n",
    "others' names": b"foo.bar=1\nfoo-bar=2\nBACKFILL_DAYS=7\n",
    "a long line": b"X=" + b"x" * 100_000 + b"\nBACKFILL_DAYS=7\n",
}
#: Each is refused; the number is the line that is named.
REFUSED = {
    "Latin-1": ("# prêt\nBACKFILL_DAYS=7\n".encode("latin-1"), 1),
    "Latin-1 in another value": ("A=1\nNAME=Jos\xe9\n".encode("latin-1"), 2),
    "half of a character": (b"A=1\nB=2\nC=\xc3\n", 3),
    "UTF-16 cut": (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le") + b"\n", 3),
    "a NUL": (b"A=1\nBACKFILL_DAYS=7\0\n", 2),
    "NULs at the end": (TEXT.encode() + b"\0" * 7, 3),
    "a NUL behind CRs": (b"A=1\rB=2\r\r\0", 4),
    "no sign": (b"A=1\nBACKFILL_DAYS 7\n", 2),
    "a colon": (b"BACKFILL_DAYS: 7\n", 1),
    "a colon without a space": (b"A=1\n\nBACKFILL_DAYS:7\n", 3),
    "a quote that is not closed": (b'A=1\nBACKFILL_DAYS="7\n', 2),
    "a single quote that is not closed": (b"BACKFILL_DAYS='7\n", 1),
    "a quote that is closed in a later line": (b'KAFKA_TOPIC="a\nSINK_SCHEMA="b"\n', 1),
    "a quote that swallows a setting": (b'A=1\nFOO="x\nBACKFILL_DAYS=7\nBAR=y"\n', 2),
    "a quote that swallows an exported setting": (b"FOO='x\nexport BACKFILL_DAYS=7\n'\n", 1),
    "a setting over lines": (b'KAFKA_TOPIC="a\nb"\n', 1),
    "something behind a quote": (b"BACKFILL_DAYS='7' days\n", 1),
    "set": (b"set BACKFILL_DAYS=7\n", 1),
    "a section": (b"A=1\n[backfill]\nBACKFILL_DAYS=7\n", 2),
    "YAML": (b"---\nA=1\n", 1),
    "JSON": (b'{"BACKFILL_DAYS": 7}\n', 1),
    "a semicolon's comment": (b"; backfill\n", 1),
    "slashes' comment": (b"// backfill\n", 1),
    "a sign alone": (b"A=1\n=7\n", 2),
    "a hidden space in a name": ("\u200bBACKFILL_DAYS=7\n".encode(), 1),
    "a hard space in a name": ("A=1\nBACKFILL\u00a0DAYS=7\n".encode(), 2),
    "a letter that looks like ours": ("BACKFILL_D\u0410YS=7\n".encode(), 1),
    "a merge's marks": (b"<<<<<<< HEAD\nBACKFILL_DAYS=7\n", 1),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1),
}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_there_are_sixty() -> None:
    assert len(UNDERSTOOD) + len(REFUSED) >= 60


@pytest.mark.parametrize("form", UNDERSTOOD)
def test_it_is_understood(form: str) -> None:
    Path(".env").write_bytes(UNDERSTOOD[form])
    assert load_settings().backfill_days == 7


@pytest.mark.parametrize("form", REFUSED)
def test_it_is_refused_with_its_line(form: str) -> None:
    data, line = REFUSED[form]
    Path(".env").write_bytes(data)
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert f"{Path('.env').absolute()}, line {line}: " in str(refusal.value)
    assert refusal.value.exit_code == 2
    assert "\n" not in str(refusal.value)


def test_nothing_of_a_line_is_told() -> None:
    for text in ("DATABASE_URL='postgresql://u:hunter2@h/d\n", "KAFKA_SASL_PASSWORD hunter2\n", "hunter2 = é\xe9\n"):
        Path(".env").write_bytes(text.encode("latin-1", "replace"))
        with pytest.raises(SettingsError) as refusal:
            load_settings()
        assert "hunter2" not in str(refusal.value)


def test_a_secret_keeps_its_quotes_and_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "'hunter2' ")
    password = load_settings().kafka_sasl_password
    assert password is not None
    assert password.get_secret_value() == "'hunter2' "


def test_what_is_no_file_is_passed_over() -> None:
    assert read_dotenv(Path(".env"), setting_names()) == {}
    Path(".env").mkdir()  # a virtual environment
    assert load_settings().backfill_days == 0
    Path(".env").rmdir()
    Path(".env").symlink_to("nowhere")
    assert load_settings().backfill_days == 0
    Path(".env").unlink()
    os.mkfifo(".env")
    assert load_settings().backfill_days == 0


def test_what_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_bytes(b"x=" + b"y" * LARGEST)
    with pytest.raises(SettingsError, match=r"\.env is larger than 1 MB"):
        load_settings()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)  # root may read everything
    with pytest.raises(SettingsError, match=r"\.env cannot be read: Permission denied"):
        load_settings()


@given(st.binary(max_size=60))
def test_whatever_it_is_it_is_names_and_values_or_a_sentence(data: bytes) -> None:
    file = Path("made.env")
    file.write_bytes(data)
    try:
        read_dotenv(file, setting_names())
    except SettingsError as error:
        assert str(file) in str(error)


@given(st.text(max_size=40), st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
def test_a_mark_tells_the_encoding(text: str, encoding: str) -> None:
    text = text.replace("\0", "").removeprefix("\ufeff")
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        return
    assert decode(data, Path(".env")) == text
