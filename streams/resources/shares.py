"""The use of the machine between two looks at its processes, by process and by name. Pure.

Kernel threads are nobody's: they write, compress and send for whoever asked, and much of it is for us.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from streams.resources.others import Other
from streams.resources.process_table import Key, Table
from streams.text import printable

#: How many of the others are named.
NAMED = 3
#: The name of other work whose processes are not seen: outside our container, or hidden from us.
NOT_SEEN = "not seen from here"


def spent(before: Table, after: Table) -> dict[int, float]:
    """Return the CPU seconds that each process has used since ``before``, with its children that came and went.

    Those of which nothing has changed are left out.

    When a process ends, what it had used in all its life is added to what its parent has reaped; what was counted
    before is taken off there, or, where somebody else has reaped it, off those who have reaped most.
    """
    gone = _gone(before, after)
    own: dict[int, float] = {}
    reaped: dict[int, float] = {pid: -seconds for pid, seconds in gone.items() if pid in after}
    for pid, process in after.items():
        known = before.get(pid)
        if known is process:  # nothing has changed
            continue
        was = known if known is not None and known.key == process.key else None
        own[pid] = max(0.0, process.used - (was.used if was else 0.0))
        reaped[pid] = reaped.get(pid, 0.0) + process.reaped - (was.reaped if was else 0.0)
    elsewhere = gone.get(0, 0.0) - sum(seconds for seconds in reaped.values() if seconds < 0)
    for pid in sorted((pid for pid, seconds in reaped.items() if seconds > 0), key=lambda pid: -reaped[pid]):
        taken = min(elsewhere, reaped[pid])
        elsewhere -= taken
        own[pid] += reaped[pid] - taken
    return own


def _gone(before: Table, after: Table) -> dict[int, float]:
    """Return the use of ended processes when last seen, by the ancestor that is left; by 0 where none is."""
    ended = {pid for pid, process in before.items() if pid not in after or after[pid].key != process.key}
    found: dict[int, float] = {}
    for pid in ended:
        left, steps = before[pid].parent, 0
        while left in ended and steps < len(ended):
            left, steps = before[left].parent, steps + 1
        left = left if left in before and left not in ended else 0
        found[left] = found.get(left, 0.0) + before[pid].used + before[pid].reaped
    return found


def with_children(table: Table, roots: Iterable[Key]) -> set[int]:
    """Return the pids of these processes and of all below them."""
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    ahead = [key[0] for key in roots if key[0] in table and table[key[0]].key == key]
    while ahead:
        pid = ahead.pop()
        if pid not in found:
            found.add(pid)
            ahead += children.get(pid, ())
    return found


def by_name(table: Table, seconds: Mapping[int, float], ours: Set[int]) -> dict[str, float]:
    """Return the CPU seconds of all processes but ours, by their name."""
    found: dict[str, float] = {}
    for pid, used in seconds.items():
        process = table[pid]
        if used > 0 and pid not in ours and not process.is_kernel:
            found[process.name] = found.get(process.name, 0.0) + used
    return found


def largest(seconds: Mapping[str, float], whole: float) -> tuple[Other, ...]:
    """Return those that used most, as shares of ``whole`` CPU seconds; less than a hundredth is left out."""
    shares = sorted(((used / whole, name) for name, used in seconds.items()), reverse=True)
    return tuple(Other(printable(name, 40), round(share, 3)) for share, name in shares[:NAMED] if share >= 0.01)
