"""Decides whether records are expected to be new to the table, from how that went before. Pure.

A plain INSERT costs two thirds of one that looks for the key first, but only where no key is there: else it was in
vain, and leaves dead rows. A replay must cost that once, not with each batch.
"""

from __future__ import annotations

from typing import Final

#: Batches without the expectation after it was wrong, and the most of them: each time it is wrong again they double.
FIRST_REST: Final = 16
LONGEST_REST: Final = 1024
#: Characters of a TID that two of the same half minute share. A record that is created with an rkey of the time of its
#: commit's rev was made just before, so no row has its key yet. This is only a hint.
SAME_TIME: Final = 6


class Expectation:
    """The expectation of one partition. ``holds`` is asked once for each batch."""

    def __init__(self) -> None:
        self._held = False
        self._rest = 0
        self._next_rest = FIRST_REST

    def holds(self) -> bool:
        """Return True where new rows are to be expected in the next batch."""
        self._held = self._rest == 0
        self._rest -= not self._held
        return self._held

    def note(self, *, wrong: bool | None) -> None:
        """Note how it went with the last batch; None where that is not known."""
        if wrong is None or not self._held:
            return
        if wrong:
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest, LONGEST_REST)
        else:
            self._next_rest = FIRST_REST
