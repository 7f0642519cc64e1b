"""Who may connect to the development relay: the HTTP answers of relays that refuse, limit, or send elsewhere. Pure."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlencode

from streams.simulator.faults import Fault, Faults

#: The mark of an address that a redirect gave: it is not sent elsewhere again.
_REDIRECTED: Final = "redirected"
#: For a ``limit`` that names no seconds.
LIMIT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer instead of a websocket."""

    status: HTTPStatus
    text: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Caller:
    """A handshake: the connection's number (from 1), its address, its query, how many the address has open already."""

    number: int
    address: str
    path: str
    query: str
    open: int
    #: Seconds of a clock that does not step, and of the wall's.
    now: float
    wall: float


class Admission:
    """Judges each handshake by the relay's faults, and remembers those that it admitted."""

    def __init__(self, faults: Faults, *, negative_cursors: bool) -> None:
        self._faults = faults
        self._negative_cursors = negative_cursors
        self._admitted: defaultdict[str, deque[float]] = defaultdict(deque)

    def judge(self, caller: Caller) -> Answer | int | None:
        """An answer that ends it, or the cursor of one that may connect (None: live)."""
        values = parse_qs(caller.query)
        answer = self._refusal(caller) or self._too_many(caller) or self._redirect(caller, values)
        if answer is not None:
            return answer
        text = values.get("cursor", [""])[0]
        if not text:
            cursor = None
        elif text.removeprefix("-").isdecimal() and (self._negative_cursors or text.isdecimal()):
            cursor = max(0, int(text))
        else:
            return Answer(HTTPStatus.BAD_REQUEST, "cursor must be an integer")
        fault = self._faults.standing("refuse_cursor", caller.number)
        if cursor is not None and fault is not None and (fault.seq is None or cursor < fault.seq):
            fault.fired += 1
            return Answer(HTTPStatus(fault.status or 400), fault.reason or "this cursor cannot be served")
        self._admitted[caller.address].append(caller.now)
        return cursor

    def _refusal(self, caller: Caller) -> Answer | None:
        fault = self._faults.take("refuse", caller.number)
        if fault is None:
            return None
        answer = Answer(HTTPStatus(fault.status or 503), fault.reason or "refused")
        if fault.retry or answer.status is HTTPStatus.TOO_MANY_REQUESTS:
            return _with_retry(answer, fault, fault.seconds or 1, caller.wall)
        return answer

    def _too_many(self, caller: Caller) -> Answer | None:
        """``single``: one connection of an address at a time; ``limit``: count= of them in seconds=."""
        fault = self._faults.standing("single", caller.number)
        if fault is not None and caller.open:
            fault.fired += 1
            status = HTTPStatus(fault.status or 429)
            return Answer(status, fault.reason or "one connection of an address at a time")
        fault = self._faults.standing("limit", caller.number)
        if fault is None:
            return None
        admitted = self._admitted[caller.address]
        within = fault.seconds or LIMIT_SECONDS
        while admitted and admitted[0] <= caller.now - within:
            admitted.popleft()
        if len(admitted) < fault.count:
            return None
        fault.fired += 1
        answer = Answer(HTTPStatus(fault.status or 429), fault.reason or "too many connections")
        return _with_retry(answer, fault, admitted[-fault.count] + within - caller.now, caller.wall)

    def _redirect(self, caller: Caller, values: dict[str, list[str]]) -> Answer | None:
        """Elsewhere, with the cursor (keep=1) or without it: a proxy that forgets the query."""
        fault = self._faults.standing("redirect", caller.number)
        if fault is None or _REDIRECTED in values or "cursor" not in values:
            return None
        fault.fired += 1
        kept = {"cursor": values["cursor"][0]} if fault.keep else {}
        where = f"{caller.path}?{urlencode({**kept, _REDIRECTED: 1})}"
        return Answer(HTTPStatus(fault.status or 302), "elsewhere", (("Location", where),))


def _with_retry(answer: Answer, fault: Fault, seconds: float, wall: float) -> Answer:
    """The answer with Retry-After as the fault says: ``seconds`` (the default), a ``date``, or ``none``."""
    if fault.retry == "none":
        return answer
    whole = max(1, math.ceil(seconds))
    text = formatdate(math.ceil(wall) + whole, usegmt=True) if fault.retry == "date" else str(whole)
    return replace(answer, headers=(*answer.headers, ("Retry-After", text)))
