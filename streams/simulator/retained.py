"""The frames that a relay keeps: as ready websocket messages in one file, in the order of the stream.

The seqs of a stream need not ascend. Where they do, a place is found by bisection; else each frame is looked at.
The file is an unnamed temporary one: a million frames take no process memory, and the page cache serves them.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from streams.simulator.recording import Frame

_FLUSH_BYTES: Final = 1024 * 1024


def websocket_message(data: bytes, *, text: bool = False) -> bytes:
    """Return a whole message as a server sends it: unmasked, in one frame."""
    size, opcode = len(data), b"\x81" if text else b"\x82"
    if size < 126:
        return opcode + bytes((size,)) + data
    return opcode + (b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")) + data


def fragments(data: bytes) -> list[bytes]:
    """Return a binary message in three fragments, the second of no bytes, and a ping between them (RFC 6455, 5.4)."""
    half = len(data) // 2
    return [
        b"\x02" + websocket_message(data[:half])[1:],
        b"\x89\x04ping",
        b"\x00\x00",
        b"\x80" + websocket_message(data[half:])[1:],
    ]


class FrameStore:
    """Frames in the order of the stream, each at an index from 0. ``resets``: where a new sequence begins."""

    def __init__(self, frames: Iterable[Frame] = ()) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as the store)
        self._pending = bytearray()
        self._written = 0
        self._ends = array("Q")
        self.seqs = array("q")
        self.times = array("q")
        self.resets: list[int] = []
        self._ascending = True  # within each sequence
        self.extend(frames)

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, frame: Frame) -> None:
        """Keep one more frame."""
        if self.seqs and frame.anew:
            self.resets.append(len(self.seqs))
        elif self.seqs and frame.seq < self.seqs[-1]:
            self._ascending = False
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
        """Return seq and time of the last frame (without its bytes), or None."""
        return Frame(self.seqs[-1], self.times[-1], b"") if self.seqs else None

    def index_after(self, seq: int, low: int, high: int) -> int:
        """Return the first index in low..high whose seq is above ``seq``; ``high`` if there is none."""
        if self.ascends(low, high):
            return bisect_right(self.seqs, seq, low, high)
        return next((index for index in range(low, high) if self.seqs[index] > seq), high)

    def index_from(self, seq: int, low: int, high: int) -> int:
        """Return the first index in low..high whose seq is ``seq`` or above; ``high`` if there is none."""
        return self.index_after(seq - 1, low, high)

    def ascends(self, low: int, high: int) -> bool:
        """Return True if the seqs of low..high are in order: no frame is out of place, no sequence begins within."""
        return self._ascending and not any(low < reset < high for reset in self.resets)

    def highest(self, low: int, high: int) -> int:
        """Return the highest seq in low..high, which is not empty."""
        return self.seqs[high - 1] if self.ascends(low, high) else max(self.seqs[low:high])

    def run_above(self, seq: int, index: int, limit: int) -> tuple[int, int]:
        """Return the next frames in a row, from ``index`` on, whose seqs are above ``seq``; empty at ``limit``."""
        begin = next((i for i in range(index, limit) if self.seqs[i] > seq), limit)
        return begin, next((i for i in range(begin, limit) if self.seqs[i] <= seq), limit)

    def chunk_end(self, index: int, limit: int, size: int) -> int:
        """Return the end of a chunk of about ``size`` bytes from ``index``: at least one frame, at most ``limit``."""
        start = self._ends[index - 1] if index else 0
        return min(limit, max(index + 1, bisect_right(self._ends, start + size, index, limit)))

    def messages(self, index: int, end: int) -> bytes:
        """Return the websocket messages of the frames index..end, one after the other."""
        start = self._ends[index - 1] if index else 0
        stop = self._ends[end - 1] if end else 0
        if stop > self._written:
            self._flush()
        return os.pread(self._file.fileno(), stop - start, start)

    def frame(self, index: int) -> Frame:
        """Return one frame, as it was added."""
        message = self.messages(index, index + 1)
        data = message[{126: 4, 127: 10}.get(message[1], 2) :]
        return Frame(self.seqs[index], self.times[index], data, message[0] & 15 == 1, index in self.resets)

    def frames(self) -> Iterator[bytes]:
        """Yield the bytes of all frames."""
        return (self.frame(index).data for index in range(len(self)))

    def close(self) -> None:
        """Close the file, which deletes it."""
        self._file.close()

    def _flush(self) -> None:
        view = memoryview(self._pending)
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])
        self._written += len(view)
        view.release()
        self._pending = bytearray()
