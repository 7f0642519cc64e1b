"""Reads the SQL files of this package: the named queries, the migrations, the cursor's table."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

_FILES: Final = resources.files("streams.postgres")
_NAME: Final = re.compile(r"^-- name: (\w+)[ \t]*\n", re.MULTILINE)
#: A query's name in braces stands for its text.
_PART: Final = re.compile(r"\{(\w+)\}")


class Migration(NamedTuple):
    """One file of ``migrations``: ``0001_tables.sql`` is version 1."""

    version: int
    name: str
    sql: str


@cache
def _queries() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in _FILES.joinpath("queries").iterdir():
        parts = _NAME.split(file.read_text("utf-8"))
        for name, sql in zip(parts[1::2], parts[2::2], strict=True):
            assert name not in found, f"two queries are called {name}"
            found[name] = sql.strip().removesuffix(";")
    return {name: _PART.sub(lambda part: found.get(part[1], part[0]), sql) for name, sql in found.items()}


def query(name: str) -> str:
    """Return the query of that name; a query begins with ``-- name: …``. Raises KeyError where there is none."""
    return _queries()[name]


@cache
def cursor_table() -> str:
    """Return the statement that creates ``firehose_cursor``."""
    return _FILES.joinpath("cursor_table.sql").read_text("utf-8")


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all migrations, in order."""
    files = sorted(
        (file for file in _FILES.joinpath("migrations").iterdir() if file.name.endswith(".sql")), key=lambda f: f.name
    )
    return tuple(
        Migration(int(file.name.split("_")[0]), file.name.removesuffix(".sql"), file.read_text("utf-8"))
        for file in files
    )
