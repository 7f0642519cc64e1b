"""What the development relay does wrong on request: how it is written on a command line, and the bad frames themselves.

A specification is ``KIND[:name=value,…]``. *When*: ``after=N`` (N frames into a connection) or ``seq=S`` (before the
first frame with that seq or a higher one); neither is at once. *How often*: ``times=N`` over all connections (1 unless
said; 0 is every time), only on the connection ``connection=K`` (the first is 1). A fault in the middle waits ``settle``
seconds (0.1) with the stream stopped there and is spent only on a connection that is still open: a client that reads
one frame to learn a seq's time does not use it up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final, get_type_hints

from streams.errors import SettingsError
from streams.local.repository import encode

#: What a connection can suffer, with what is done.
CONNECTION_KINDS: Final = {
    "drop": "end the TCP connection without a close frame (hard=1: reset it)",
    "close": "close properly (code=1011, reason=…)",
    "duplicate": "send each of the next count=10 frames twice",
    "rewind": "go back count=10 frames and go on from there",
    "stall": "send nothing for seconds=0 (0: for ever); pongs=1 still answers pings",
    "drip": "from here on send only rate=2 frames a second",
    "error": "an error frame (op -1, name=InternalError, message=…), then close",
    "future_cursor": "answer as if the cursor were beyond the head",
    "clamp": "begin count=10 frames later than asked for, silently",
    "refuse": "answer the handshake with HTTP status=503",
}
#: Frames that mean nothing; sent by a connection (after=, seq=) or put into the generated traffic (scatter=N of them).
FRAME_KINDS: Final = {
    "garbage": "a binary frame that is no CBOR",
    "empty": "a binary frame of no bytes",
    "text": "a text frame",
    "truncated": "a commit that ends in the middle",
    "no_header": "a body without a header",
    "unknown_t": "a header with a type from the future",
    "unknown_op": "a header with an op from the future",
}


@dataclass
class Fault:
    """One fault to inject. ``fired`` counts how often it was."""

    kind: str
    after: int | None = None
    seq: int | None = None
    times: int = 1
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
    status: int = 503
    scatter: int = 0
    fired: int = 0

    @property
    def spent(self) -> bool:
        """True when it has happened as often as was asked for."""
        return bool(self.times) and self.fired >= self.times

    def fits(self, connection: int) -> bool:
        """True if the connection of this number (from 1) may suffer it."""
        return not self.spent and self.connection in (0, connection)


def parse_fault(spec: str) -> Fault:
    """A fault from its specification. Raises SettingsError."""
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
        """Arm a fault; connections that are open are not affected. Raises SettingsError if its kind is none."""
        fault = parse_fault(fault) if isinstance(fault, str) else fault
        if fault.kind not in CONNECTION_KINDS and fault.kind not in FRAME_KINDS:
            raise SettingsError(
                f"Unknown fault {fault.kind!r}; there are {', '.join((*CONNECTION_KINDS, *FRAME_KINDS))}."
            )
        self.all.append(fault)
        return fault

    def take(self, kind: str, connection: int) -> Fault | None:
        """A fault of this kind for a connection that begins; it has then happened."""
        for fault in self.all:
            if fault.kind == kind and fault.fits(connection):
                fault.fired += 1
                return fault
        return None

    def of(self, connection: int) -> list[Fault]:
        """The faults that may happen in the middle of this connection."""
        at_start = ("refuse", "future_cursor", "clamp")
        return [fault for fault in self.all if fault.kind not in at_start and fault.fits(connection)]


def error_frame(name: str, message: str) -> bytes:
    """The frame that a relay sends before it closes for a reason."""
    return encode({"op": -1}) + encode({"error": name, "message": message})


def info_frame(name: str, message: str) -> bytes:
    """An #info frame."""
    return encode({"op": 1, "t": "#info"}) + encode({"name": name, "message": message})


def bad_frame(kind: str, seq: int, time: str) -> tuple[bytes, bool]:
    """A frame of one of FRAME_KINDS, and whether it is text. ``seq`` and ``time`` are what it would have had."""
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
