"""The rules of names once more, character by character from the specifications; None where it is a matter of taste."""

from __future__ import annotations

from string import ascii_letters, ascii_lowercase, digits
from typing import Any, Final

HOUR_US: Final = 3_600_000_000
#: The last second of the year 9999.
MAX_TIME_US: Final = 253_402_300_799_000_000
MAX_TID_US: Final = (1 << 53) - 1
MAX_SEQ: Final = (1 << 63) - 1
MAX_KEY: Final = 2660
_TID: Final = "234567abcdefghijklmnopqrstuvwxyz"
_ALNUM: Final = frozenset(ascii_letters + digits)
_DID: Final = _ALNUM | frozenset("._:%-")
_NSID: Final = _ALNUM | frozenset(".-")
_RKEY: Final = _ALNUM | frozenset("._:~-")

#: True: must be taken. False: must not. None: either, as long as it is accounted for.
Fate = bool | None


def did(text: Any) -> Fate:
    if type(text) is not str or len(text) > 2048 or not _DID.issuperset(text) or not text.startswith("did:"):
        return False
    method, colon, rest = text[4:].partition(":")
    if not method or not colon or not rest or not set(ascii_lowercase).issuperset(method) or text[-1] in ":%":
        return False
    return True if "%" not in rest else None


def nsid(text: Any) -> Fate:
    if type(text) is not str or len(text) > 317 or not _NSID.issuperset(text):
        return False
    parts = text.split(".")
    if (
        len(parts) < 3
        or "" in parts
        or any(len(part) > 64 for part in parts)
        or not set(ascii_letters).issuperset(parts[-1][:1])
    ):
        return False
    fine = all(len(part) <= 63 and part[0] != "-" != part[-1] for part in parts)
    return (
        True
        if fine and parts[0][0] not in digits and "-" not in parts[-1] and len(text) - len(parts[-1]) <= 254
        else None
    )


def rkey(text: Any) -> Fate:
    return type(text) is str and 1 <= len(text) <= 512 and _RKEY.issuperset(text) and text not in (".", "..")


def path(text: Any) -> Fate:
    if type(text) is not str:
        return False
    collection, slash, key = text.partition("/")
    return both(nsid(collection), bool(slash), rkey(key))


def tid_us(text: Any) -> int | None:
    """The microseconds in a TID; None where it is none."""
    if type(text) is not str or len(text) != 13 or not set(_TID).issuperset(text) or text[0] not in "234567abcdefghij":
        return None
    number = 0
    for character in text:
        number = number * 32 + _TID.index(character)
    return number >> 10


def both(*fates: Fate) -> Fate:
    """True where all are, False where one is."""
    return False if False in fates else None if None in fates else True


def _whole(number: Any, least: int, most: int) -> bool:
    return type(number) is int and least <= number <= most


def row(message: Any, key: bytes | None, now: int) -> Fate:  # noqa: PLR0911 (one a reason)
    """Whether a commit's message becomes a row. ``message`` is what JSON says."""
    commit = message.get("commit")
    if type(commit) is not dict or message.get("kind") != "commit" or key is None:
        return False
    us, time, seq = tid_us(commit.get("rev")), message.get("time_us"), message.get("seq")
    names = message.get("did"), commit.get("collection"), commit.get("rkey")
    fate = both(did(names[0]), nsid(names[1]), rkey(names[2]))
    if fate is False or us is None or not _whole(time, 0, MAX_TIME_US) or not (seq is None or _whole(seq, 0, MAX_SEQ)):
        return False
    if names[0].encode() != key or us > min(max(now, time) + HOUR_US, MAX_TID_US) or sum(map(len, names)) > MAX_KEY:
        return False
    if not all(type(commit.get(name)) in (str, type(None)) for name in ("cid", "since")):
        return False
    if any(type(message.get(other)) not in (dict, type(None)) for other in ("identity", "account", "sync")):
        return False
    if any(message.get(other) is not None for other in ("identity", "account", "sync")):
        return None if fate else fate
    operation = commit.get("operation")
    if operation == "delete":
        return fate
    cid = commit.get("cid")
    whole = type(commit.get("record")) is dict and type(cid) is str and cid.isascii() and cid.isalnum()
    return fate if whole and operation in ("create", "update") else False
