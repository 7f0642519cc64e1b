"""The faults of the development relay on request: how they are written on a command line, and the bad frames.

A specification is ``KIND[:name=value,…]``. *When*: ``after=N`` (N frames into a connection) or ``seq=S`` (before the
first frame with that seq or a higher one); neither is at once. *How often*: ``times=N`` over all connections (1 unless
said; 0 is every time), only on the connection ``connection=K`` (the first is 1). A fault in the middle waits ``settle``
seconds (0.1) with the stream stopped there and is spent only on a connection that is still open: a client that reads
one frame to learn a seq's time does not use it up. Kinds of ORDER_KINDS and CLAIM_KINDS with ``scatter=N``, ``every=N``
or ``pds=N`` are put into the stream itself (``arrangement.py``), where every client finds them in the same place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final, get_type_hints

from streams.errors import SettingsError
from streams.simulator.repository import encode

#: What a connection can suffer, with what is done.
CONNECTION_KINDS: Final = {
    "drop": "end the TCP connection without a close frame (hard=1: reset it)",
    "close": "close properly (code=1011, reason=…)",
    "duplicate": "send each of the next count=10 frames twice",
    "fragments": "send each of the next count=10 frames in three fragments, with a ping between, as some proxies do",
    "rewind": "go back count=10 frames and go on from there",
    "stall": "send nothing for seconds=0 (0: for ever); pongs=1 still answers pings",
    "drip": "from here on send only rate=2 frames a second",
    "error": "an error frame (op -1, name=InternalError, message=…), then close",
    "future_cursor": "answer as if the cursor were beyond the head (status=400: as an HTTP answer)",
    "clamp": "begin count=10 frames later than asked for, silently",
    "late": "begin a replay of more than count=10 frames only after seconds (5); live at once",
    "refuse": "answer the handshake with HTTP status=503 (retry=seconds, date or none: Retry-After)",
    "limit": "admit count=10 connections of an address in seconds (30), more get status=429 (retry= as above)",
    "single": "admit one connection of an address at a time, more get status=429",
    "refuse_cursor": "answer a cursor below seq=S (any, without seq) with status=400",
    "redirect": "send a client with a cursor elsewhere (status=302), without its cursor (keep=1: with it)",
}
#: Kinds that last: every time, unless times= says otherwise.
STANDING_KINDS: Final = ("late", "limit", "single", "refuse_cursor", "redirect")
#: Kinds that are over when the stream begins.
_AT_START: Final = ("refuse", "future_cursor", "clamp", *STANDING_KINDS)
#: Another order of the next frames.
ORDER_KINDS: Final = {
    "swap": "exchange the next two frames",
    "overtake": "send count=10 frames by=50 frames before their turn, as live events overtake a replay",
    "repeat": "send the next frame again count=10 frames later",
}
#: What the next frames claim. Of the first three only commits: an account's states are ordered by seq.
CLAIM_KINDS: Final = {
    "ahead": "the next commit has a seq that is jump=1000000 too high",
    "behind": "the next commit has a seq that is jump=1000000 too low",
    "same_seq": "the next commit has the seq of the frame before it",
    "clock_ahead": "count=10 frames have a time that is seconds (a year) too late (pds=N: one PDS of N, always)",
    "clock_behind": "count=10 frames have a time that is seconds (a year) too early (pds=N)",
    "loose_header": "count=10 frames are not canonical DAG-CBOR: the header is {op, t}",
    "loose_integers": "count=10 frames are not canonical DAG-CBOR: op and seq are longer than need be",
    "loose_keys": "count=10 frames are not canonical DAG-CBOR: the body's keys are in reverse order",
}
#: Frames that mean nothing; sent by a connection (after=, seq=) or put into the generated traffic (scatter=N of them).
FRAME_KINDS: Final = {
    "garbage": "a binary frame that is not CBOR",
    "empty": "a binary frame of no bytes",
    "text": "a text frame",
    "truncated": "a commit that ends in the middle",
    "no_header": "a body without a header",
    "unknown_t": "a header with a type from the future",
    "unknown_op": "a header with an op from the future",
}
_KINDS: Final = (*CONNECTION_KINDS, *ORDER_KINDS, *CLAIM_KINDS, *FRAME_KINDS)


@dataclass
class Fault:
    """One fault to inject. ``fired`` counts how often it was."""

    kind: str
    after: int | None = None
    seq: int | None = None
    times: int = -1
    connection: int = 0
    settle: float = 0.1
    count: int = 10
    seconds: float = 0.0
    pongs: int = 0
    hard: int = 0
    rate: float = 2.0
    code: int = 1011
    reason: str = ""
    name: str = "InternalError"
    message: str = "injected"
    status: int = 0
    retry: str = ""
    keep: int = 0
    by: int = 50
    jump: int = 1_000_000
    scatter: int = 0
    every: int = 0
    pds: int = 0
    fired: int = 0

    def __post_init__(self) -> None:
        if self.times < 0:
            self.times = 0 if self.kind in STANDING_KINDS else 1

    @property
    def in_stream(self) -> bool:
        """Return True if it is put into the stream itself."""
        return bool(self.scatter or self.every or self.pds)

    @property
    def spent(self) -> bool:
        """Return True when it has happened as often as was asked for."""
        return bool(self.times) and self.fired >= self.times

    def fits(self, connection: int) -> bool:
        """Return True if the connection of this number (from 1) may suffer it."""
        return not self.spent and self.connection in (0, connection)


def parse_fault(spec: str) -> Fault:
    """Read a fault from its specification. Raises SettingsError."""
    kind, _, rest = spec.partition(":")
    hints = get_type_hints(Fault)
    values: dict[str, int | float | str] = {}
    for part in filter(None, rest.split(",")):
        name, _, value = part.partition("=")
        if name not in hints or name in ("kind", "fired"):
            raise SettingsError(f"--fault {spec}: unknown {name!r}; there are {_names()}.")
        try:
            values[name] = value if hints[name] is str else float(value) if hints[name] is float else int(value)
        except ValueError:
            raise SettingsError(f"--fault {spec}: {name} must be a number.") from None
    return Fault(kind, **values)  # type: ignore[arg-type]


def _names() -> str:
    return ", ".join(f.name for f in fields(Fault) if f.name not in ("kind", "fired"))


class Faults:
    """The faults of a relay; more may be added while it runs."""

    def __init__(self, faults: Iterable[Fault | str] = ()) -> None:
        self.all: list[Fault] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault | str) -> Fault:
        """Arm a fault, not for connections that are open. Raises SettingsError if there is no such kind."""
        fault = parse_fault(fault) if isinstance(fault, str) else fault
        if fault.kind not in _KINDS:
            raise SettingsError(f"Unknown fault {fault.kind!r}; there are {', '.join(_KINDS)}.")
        self.all.append(fault)
        return fault

    def take(self, kind: str, connection: int) -> Fault | None:
        """Return a fault of this kind for a connection that begins, and count that it has happened."""
        for fault in self.all:
            if fault.kind == kind and fault.fits(connection):
                fault.fired += 1
                return fault
        return None

    def standing(self, kind: str, connection: int) -> Fault | None:
        """Return a fault of this kind that may concern a connection. The caller counts it where it does."""
        return next((fault for fault in self.all if fault.kind == kind and fault.fits(connection)), None)

    def of(self, connection: int) -> list[Fault]:
        """Return the faults that may happen in the middle of this connection."""
        return [fault for fault in self.all if fault.kind not in _AT_START and fault.fits(connection)]


def error_frame(name: str, message: str) -> bytes:
    """Return the frame that a relay sends before it closes for a reason."""
    return encode({"op": -1}) + encode({"error": name, "message": message})


def info_frame(name: str, message: str) -> bytes:
    """Return an #info frame."""
    return encode({"op": 1, "t": "#info"}) + encode({"name": name, "message": message})


def bad_frame(kind: str, seq: int, time: str) -> tuple[bytes, bool]:
    """Return a frame of one of FRAME_KINDS, and True if it is text. ``seq``, ``time``: of a good frame there."""
    header, body = encode({"op": 1, "t": "#commit"}), {"seq": seq, "time": time, "repo": "did:plc:nobody", "ops": []}
    frames = {
        "garbage": b"\xff\xfe\xfd this is no CBOR",
        "empty": b"",
        "text": b'{"op":1,"t":"#commit"}',
        "truncated": header + encode({**body, "blocks": {"$bytes": "AAAA" * 100}})[:-200],
        "no_header": encode(body),
        "unknown_t": encode({"op": 1, "t": "#future"}) + encode(body),
        "unknown_op": encode({"op": 7, "t": "#commit"}) + encode(body),
    }
    return frames[kind], kind == "text"
