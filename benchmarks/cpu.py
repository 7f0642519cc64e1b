"""CPU seconds of families of processes by kind, from samples. Pure.

A process that ends between two samples is not lost: the kernel adds what it spent to its parent's account of ended
children.
"""

from __future__ import annotations

from typing import Final

from benchmarks.procfs import FamilySample, Member

#: The kind of the family's root itself.
ROOT: Final = "root"
#: The kind of what ended children spent after they were last seen, and of those that were never seen.
UNSEEN: Final = "unseen"


class CpuLedger:
    """The CPU seconds that a family spent since its first sample, by kind."""

    def __init__(self, first: FamilySample) -> None:
        self._first = self._last = first
        #: Every descendant that was ever seen, as it was seen last.
        self._seen: dict[tuple[int, int], Member] = dict(first.members)

    def add(self, sample: FamilySample) -> None:
        """Take in a later sample."""
        self._last = sample
        self._seen |= sample.members

    def spent(self) -> dict[str, float]:
        """Return the seconds by kind."""
        spent = {ROOT: self._last.own - self._first.own}
        for key, member in self._seen.items():
            before = self._first.members.get(key)
            spent[member.kind] = spent.get(member.kind, 0.0) + member.seconds - (before.seconds if before else 0.0)
        gone = sum(member.seconds for key, member in self._seen.items() if key not in self._last.members)
        # Ticks are rounded for each process on its own: the difference may be slightly negative.
        spent[UNSEEN] = max(0.0, self._last.ended - self._first.ended - gone)
        return spent


def by_postgres_kind(spent: dict[str, float]) -> dict[str, float]:
    """Return a Postgres' seconds with the postmaster's own, and what was not seen, as ``other``."""
    found = {kind: seconds for kind, seconds in spent.items() if kind not in (ROOT, UNSEEN)}
    found["other"] = found.get("other", 0.0) + spent.get(ROOT, 0.0) + spent.get(UNSEEN, 0.0)
    return found
