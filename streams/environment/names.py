"""Names in the environment: which are settings of ours, which are mistyped, which are others'. Pure.

An environment is shared: a platform puts its service links there, a ``.env`` file serves a relay and a broker too. So
a name is refused only where it is near one of ours, which a mistyped name is; what is far from all of them is another
program's, and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from enum import Enum, auto
from typing import Final

#: How our names begin, but for the few that every program has (DATABASE_URL, LOG_LEVEL).
OUR_PREFIXES: Final = ("BACKFILL_", "KAFKA_", "SINK_", "INGEST_", "RELAY_", "WORKER_", "LOCAL_")
#: Prefixes that programs beside us hardly use: a name with one word less than ours is meant for us.
_OURS_ALONE: Final = ("BACKFILL_", "SINK_", "INGEST_")
#: Others' names that are near ours: YARN gives every container LOCAL_DIRS.
_OTHERS: Final = ("LOCAL_DIRS",)
#: Characters of a name up to which one difference makes it another; a longer one may have two.
_SHORT: Final = 12
#: A name that does not even begin as ours needs so many characters to count as one that is mistyped in its beginning.
_TELLING: Final = 10
#: What Kubernetes and docker put into the environment for a service or a linked container that is called NAME.
_SERVICE_LINK: Final = re.compile(
    r"[A-Z0-9_]+?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?|ENV_\w+)", re.ASCII
)
#: Two more end as names of ours may, and are told by their values: NAME_PORT and NAME_NAME.
_LINK_VALUES: Final = {"_PORT": re.compile(r"(tcp|udp|sctp)://[^/]*"), "_NAME": re.compile(r"/.*")}
#: What Faust reads before our code runs, or looks for beside its settings: its own options, and Django's.
_FAUSTS: Final = ("FAUST_", "F_", "DJANGO_SETTINGS_MODULE")


class Owner(Enum):
    """The owner of a name."""

    OURS = auto()
    MISTYPED = auto()
    #: It begins like ours, and is read by another program.
    NEIGHBOURS = auto()
    OTHERS = auto()


def owner_of(name: str, value: str | None, known: Iterable[str]) -> tuple[Owner, str]:
    """Return whose the name is (in capitals), and the setting that it is a mistyped form of, or an empty string."""
    known = tuple(known)
    if name in known:
        return Owner.OURS, ""
    if name in _OTHERS or is_service_link(name, value or ""):
        return Owner.OTHERS, ""
    near = nearest(name, known)
    if near is not None:
        return Owner.MISTYPED, near
    return (Owner.NEIGHBOURS if name.startswith(OUR_PREFIXES) else Owner.OTHERS), ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the setting that the name is a mistyped form of, or None."""
    ours = [setting for setting in known if setting.startswith(OUR_PREFIXES)]
    if not name.startswith(OUR_PREFIXES):
        ours = [setting for setting in ours if len(setting) >= _TELLING and distance(name, setting, 1) <= 1]
        return ours[0] if ours else None
    best = min(ours, key=lambda setting: distance(name, setting, 2), default=None)
    if best is not None and distance(name, best, 2) <= (1 if len(name) <= _SHORT else 2):
        return best
    if name.startswith(_OURS_ALONE):
        return next((setting for setting in ours if _is_a_word_less(name, setting)), None)
    return None


def _is_a_word_less(name: str, setting: str) -> bool:
    words = setting.split("_")
    return any(name.split("_") == words[:at] + words[at + 1 :] for at in range(1, len(words)))


def distance(one: str, other: str, most: int) -> int:
    """Count the characters to insert, leave out, replace or swap with the next; ``most + 1`` for more than ``most``."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def mistyped(given: Mapping[str, str | None], known: Iterable[str]) -> list[str]:
    """Return a sentence for each name that is near one of ours and is not ours."""
    known = tuple(known)
    judged = ((name, *owner_of(name, value, known)) for name, value in sorted(given.items()))
    return [f"unknown setting {name}: did you mean {near}?" for name, who, near in judged if who is Owner.MISTYPED]


def neighbours(given: Mapping[str, str | None], known: Iterable[str]) -> list[str]:
    """Return the names that begin like ours and that nobody here reads, sorted."""
    known = tuple(known)
    return sorted(name for name, value in given.items() if owner_of(name, value, known)[0] is Owner.NEIGHBOURS)


def is_service_link(name: str, value: str) -> bool:
    """Return True if a platform set the variable, not the user.

    For a service called worker-web, Kubernetes sets even WORKER_WEB_PORT: to an address, while our setting is a number.
    """
    pattern = _LINK_VALUES.get(name[-5:])
    return _SERVICE_LINK.fullmatch(name) is not None or (pattern is not None and pattern.fullmatch(value) is not None)


def forget_fausts(environment: MutableMapping[str, str]) -> None:
    """Remove what Faust would read at its import, over what we hand it."""
    for name in [name for name in environment if name.startswith(_FAUSTS)]:
        del environment[name]
