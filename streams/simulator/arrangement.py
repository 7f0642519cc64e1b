"""The order of frames on the wire, and what single frames claim, as relays get it wrong. Pure.

A relay's stream is put in order by ``arranged`` before it is served; a connection (``subscription.py``) does the same
to the frames that come next. Nothing of it changes what must come out: the highest rev of a key wins, and the later seq
of an account's states. Only commits get a wrong seq, for an account's state is ordered by seq.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from zlib import crc32

from streams.errors import SettingsError
from streams.simulator.dialects import LOOSE_KINDS, author, is_commit, loosened, with_values
from streams.simulator.faults import Fault
from streams.simulator.recording import Frame, iso_time

#: Frames at the end that are left as they are: the position settles there, and the oracle's last seq is the last.
TAIL: Final = 40
#: Those of CLAIM_KINDS that claim a seq.
SEQ_KINDS: Final = ("ahead", "behind", "same_seq")
_YEAR: Final = 365 * 86_400.0
_MAX_SEQ: Final = (1 << 53) - 1
#: The end of the year 9999.
_LAST_US: Final = 253_402_300_799_999_999


def turns(fault: Fault) -> list[int]:
    """Return the order of the next frames, by their places from here: for the kinds of ORDER_KINDS."""
    count, by = max(1, fault.count), max(1, fault.by)
    match fault.kind:
        case "swap":
            return [1, 0]
        case "overtake":
            return [*range(by, by + count), *range(by)]
        case _:  # repeat
            return [0, *range(1, count + 1), 0]


def claimed(frame: Frame, fault: Fault, before: Frame | None) -> Frame:
    """Return the frame with the claim of a fault of CLAIM_KINDS. ``before`` is the frame before it in the stream."""
    match fault.kind:
        case kind if kind in SEQ_KINDS:
            if not is_commit(frame.data):
                return frame
            seq = frame.seq + (fault.jump if fault.kind == "ahead" else -fault.jump)
            if fault.kind == "same_seq":
                seq = before.seq if before is not None else frame.seq
            seq = min(max(seq, 1), _MAX_SEQ)
            return frame._replace(seq=seq, data=with_values(frame.data, seq=seq))
        case "clock_ahead" | "clock_behind":
            shift = int((fault.seconds or _YEAR) * 1e6) * (1 if fault.kind == "clock_ahead" else -1)
            return frame._replace(
                data=with_values(frame.data, time=iso_time(min(max(0, frame.time_us + shift), _LAST_US)))
            )
        case kind if kind in LOOSE_KINDS:
            return frame._replace(data=loosened(frame.data, kind))
    raise AssertionError(fault.kind)


def frames_in_a_row(fault: Fault) -> int:
    """Return how many frames in a row a fault of CLAIM_KINDS changes."""
    return max(1, fault.count) if fault.kind.startswith(("clock_", "loose_")) else 1


def arranged(
    frames: Iterable[Frame], faults: Sequence[Fault], on_done: Callable[[str], None] | None = None
) -> list[Frame]:
    """Return the stream with all faults done, one after the other. ``on_done`` is called with the kind of each.

    Raises SettingsError if a fault says neither where nor how often.
    """
    stream = list(frames)
    for fault in faults:
        _arrange(stream, fault, on_done or (lambda _: None))
    return stream


def _arrange(stream: list[Frame], fault: Fault, on_done: Callable[[str], None]) -> None:
    order = turns(fault) if fault.kind in ("swap", "overtake", "repeat") else None
    limit = len(stream) - TAIL
    for place in reversed(list(_places(stream, fault))):  # from the end, so that places before stay where they are
        if order is not None:
            end = place + max(order) + 1
            if end > limit or any(frame.anew for frame in stream[place:end]):
                continue
            stream[place:end] = [stream[place + turn] for turn in order]
        elif fault.pds or fault.every:
            stream[place] = claimed(stream[place], fault, stream[place - 1] if place else None)
        else:
            first = _first_commit(stream, place) if fault.kind in SEQ_KINDS else place
            for index in range(first, min(first + frames_in_a_row(fault), limit)):
                stream[index] = claimed(stream[index], fault, stream[index - 1] if index else None)
        on_done(fault.kind)


def _first_commit(stream: Sequence[Frame], place: int) -> int:
    """Return the place of the first commit at ``place`` or behind it that has a frame before it."""
    return next((i for i in range(max(1, place), len(stream)) if is_commit(stream[i].data)), len(stream))


def _places(stream: Sequence[Frame], fault: Fault) -> Iterator[int]:
    """Yield the places of the stream at which a fault happens, ascending."""
    total = len(stream)
    if fault.pds:
        yield from (i for i, frame in enumerate(stream) if _of_pds(frame, fault.pds))
    elif fault.every:
        yield from range(fault.every - 1, total, fault.every)
    elif fault.scatter:
        yield from (total * (number + 1) // (fault.scatter + 1) for number in range(fault.scatter))
    elif fault.seq is not None:
        yield next((i for i, frame in enumerate(stream) if frame.seq >= fault.seq), total)
    elif fault.after is not None:
        yield fault.after
    else:
        raise SettingsError(f"The fault {fault.kind} needs scatter=, every=, after= or seq=.")


def _of_pds(frame: Frame, of: int) -> bool:
    """Return True if the frame's account is with the one PDS of ``of`` whose clock is wrong."""
    did = author(frame.data)
    return did is not None and crc32(did.encode()) % of == 0
