"""The ``.env`` file, in every form that editors leave; what cannot be read is an error with its line, never ignored.

python-dotenv reads the lines. It passes over what it cannot read, and knows one encoding at a time: hence this.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from streams.errors import SettingsError

#: Largest .env in bytes: a larger file is something else.
LARGEST: Final = 1024 * 1024
#: By the mark in front; UTF-32's little-endian mark begins with UTF-16's.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_NAME: Final = re.compile(r"[!-~]+")
#: A name without a value is legal (docker takes its value from outside, a shell exports it), a stray word is not.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def read_dotenv(file: Path, known: Iterable[str]) -> dict[str, str | None]:
    """The names and values of the file; none where there is no such file. ``known``: our settings' names.

    Raises SettingsError with the file and the line; nothing that stands in the line is in its sentence but names.
    """
    try:
        if not file.is_file():  # also a folder of that name, which is a virtual environment's
            return {}
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    if len(data) > LARGEST:
        raise SettingsError(f"{file} is larger than 1 MB: it cannot be a file of settings.")
    text = decode(data, file).replace("\r\n", "\n").replace("\r", "\n")
    _check(text, file, frozenset(known))
    return dotenv_values(stream=io.StringIO(text))


def decode(data: bytes, file: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32. Raises SettingsError."""
    encoding, mark = next(((name, mark) for mark, name in _MARKS if data.startswith(mark)), (_unmarked(data), b""))
    data = data[len(mark) :]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count("\n".encode(encoding)) + 1
        wrong = f"{file}, line {line}: this is not valid {encoding.upper()}"
        raise SettingsError(wrong, "save the file as UTF-8.") from None
    if "\0" in text:
        raise SettingsError(f"{file}, line {_line(text, text.index(chr(0)))}: a NUL stands there", "save it as UTF-8.")
    return text


def _unmarked(data: bytes) -> str:
    """The encoding of a file without a mark: every second byte of UTF-16 is 0 where it holds names and numbers."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    if max(even, odd) * 3 > len(data) and not min(even, odd) and len(data) % 2 == 0:
        return "utf-16-be" if even else "utf-16-le"
    return "utf-8"


def _check(text: str, file: Path, known: frozenset[str]) -> None:
    """Refuse what python-dotenv would pass over. Raises SettingsError."""
    for binding in parse_stream(io.StringIO(text)):
        leading = len(binding.original.string) - len(binding.original.string.lstrip())
        line = binding.original.line + binding.original.string[:leading].count("\n")
        if binding.error:
            raise SettingsError(f"{file}, line {line}: this cannot be read", "write NAME=value, close every quote.")
        if binding.key is not None:
            _check_binding(binding, f"{file}, line {line}", known)


def _check_binding(binding: Binding, where: str, known: frozenset[str]) -> None:
    assert binding.key is not None
    if not _NAME.fullmatch(binding.key) or (binding.value is None and not _PLAIN_NAME.fullmatch(binding.key)):
        raise SettingsError(f"{where}: this is not a name and a value", "write NAME=value (a comment begins with #).")
    for rest in (binding.value or "").split("\n")[1:]:
        name = rest.strip().removeprefix("export ").partition("=")[0].strip()
        if name.upper() in known:
            raise SettingsError(f"{where}: the quote that begins there is not closed before {name.upper()}.")
    if binding.key.upper() in known and "\n" in (binding.value or "").strip():
        raise SettingsError(f"{where}: {binding.key.upper()} goes over several lines", "is its quote closed?")


def _line(text: str, place: int) -> int:
    return len(re.findall(r"\r\n|\r|\n", text[:place])) + 1
