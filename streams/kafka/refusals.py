"""When a broker that refuses what we send is the end: where the reason stays, and waiting does not help. Pure."""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka.errors import InvalidTimestampError

from streams.errors import BrokerError
from streams.kafka.client import is_away
from streams.kafka.publisher import TOO_LARGE

#: Times that Kafka may refuse what we send for one reason, while nothing gets further: then that reason is the end.
MOST_REFUSALS: Final = 5


class Refusals:
    """The count of refusals by Kafka for the same reason, while nothing got further."""

    def __init__(self) -> None:
        self._reason: type[BaseException] | None = None
        self._times = 0

    def note(self, failure: BaseException | None, topic: str, *, further: bool) -> None:
        """One more. Raises BrokerError with the reason where waiting has not helped and will not.

        A broker that is away, a leader that changes, and a clock that somebody may set right are waited for.
        """
        waits = failure is None or is_away(failure) or isinstance(failure, (InvalidTimestampError, *TOO_LARGE))
        if further or waits or getattr(failure, "retriable", False) or isinstance(failure, asyncio.CancelledError):
            self._reason, self._times = None, 0
            return
        assert failure is not None
        self._times = self._times + 1 if type(failure) is self._reason else 1
        self._reason = type(failure)
        if self._times >= MOST_REFUSALS:
            raise BrokerError(
                f"Kafka refuses what we send to the topic {topic}, {self._times} times for the same reason "
                f"({failure!r})",
                "look at the topic's settings, our user's rights and the broker's log.",
            )
