"""What the transport asks of the application that it works for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from streams.resources.in_flight import Account


class Host(Protocol):
    """What the transport asks of the application; set as ``app.slice_host``."""

    async def positions(self, log_starts: Mapping[int, int]) -> dict[int, int]:
        """Next offset of each of these partitions, of which the log begins at the given offset.

        A partition without a position begins there; one whose position is older is moved there, and that is recorded.
        Waits for the database.
        """

    def fail(self, error: BaseException) -> None:
        """An unrecoverable fault: stop the process."""

    def is_waiting(self) -> bool:
        """Whether standing still is intended or somebody else's fault: the throttle, a broker or database away."""

    @property
    def account(self) -> Account:
        """What is in flight, and what may be."""
