"""Names and texts as SQL writes them. Pure."""

from __future__ import annotations


def quoted(name: str) -> str:
    """Return an SQL identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string, whatever is in it. NULs, which Postgres has no place for, are left out."""
    text = text.replace("\0", "")
    plain = "'" + text.replace("'", "''") + "'"
    return "E" + plain.replace("\\", "\\\\") if "\\" in text else plain
