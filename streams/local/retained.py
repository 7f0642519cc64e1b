"""What a relay keeps: its frames as ready websocket messages in one file, with an index by place and seq.

The file is an unnamed temporary one: a million frames take no process memory, and the page cache serves them.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from streams.local.recording import Frame

_FLUSH_BYTES: Final = 1024 * 1024


def websocket_message(data: bytes, *, text: bool = False) -> bytes:
    """A whole message as a server sends it: unmasked, in one frame."""
    size, opcode = len(data), b"\x81" if text else b"\x82"
    if size < 126:
        return opcode + bytes((size,)) + data
    return opcode + (b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")) + data


class FrameStore:
    """Frames in order, each at an index from 0. A seq below the one before it begins a new sequence (``resets``)."""

    def __init__(self, frames: Iterable[Frame] = ()) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as the store)
        self._pending = bytearray()
        self._written = 0
        self._ends = array("Q")
        self.seqs = array("q")
        self.times = array("q")
        self.resets: list[int] = []
        self.extend(frames)

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, frame: Frame) -> None:
        """Keep one more frame."""
        if self.seqs and frame.seq < self.seqs[-1]:
            self.resets.append(len(self.seqs))
        self._pending += websocket_message(frame.data, text=frame.text)
        self._ends.append(self._written + len(self._pending))
        self.seqs.append(frame.seq)
        self.times.append(frame.time_us)
        if len(self._pending) >= _FLUSH_BYTES:
            self._flush()

    def extend(self, frames: Iterable[Frame]) -> None:
        """Keep more frames."""
        for frame in frames:
            self.add(frame)

    def last(self) -> Frame | None:
        """Seq and time of the last frame (without its bytes), or None."""
        return Frame(self.seqs[-1], self.times[-1], b"") if self.seqs else None

    def index_after(self, seq: int, low: int, high: int) -> int:
        """The first index in low..high whose seq is above ``seq``; ``high`` if there is none."""
        return bisect_right(self.seqs, seq, low, high)

    def index_from(self, seq: int, low: int, high: int) -> int:
        """The first index in low..high whose seq is ``seq`` or above; ``high`` if there is none."""
        return bisect_left(self.seqs, seq, low, high)

    def chunk_end(self, index: int, limit: int, size: int) -> int:
        """How far a chunk of about ``size`` bytes from ``index`` goes: at least one frame, never beyond ``limit``."""
        start = self._ends[index - 1] if index else 0
        return min(limit, max(index + 1, bisect_right(self._ends, start + size, index, limit)))

    def messages(self, index: int, end: int) -> bytes:
        """The websocket messages of the frames index..end, one after the other."""
        start = self._ends[index - 1] if index else 0
        stop = self._ends[end - 1] if end else 0
        if stop > self._written:
            self._flush()
        return os.pread(self._file.fileno(), stop - start, start)

    def frames(self) -> Iterator[bytes]:
        """The frames themselves."""
        for index in range(len(self)):
            message = self.messages(index, index + 1)
            yield message[{126: 4, 127: 10}.get(message[1], 2) :]

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _flush(self) -> None:
        view = memoryview(self._pending)
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])
        self._written += len(view)
        view.release()
        self._pending = bytearray()
