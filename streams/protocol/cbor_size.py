"""The number of values that CBOR holds, counted without decoding it. Pure.

A decoder makes an object of up to 72 bytes (an empty map and its place in a list) of a single byte: 5 MB of nothing
but those take 360 MB. So what is large is counted first.
"""

from __future__ import annotations

from typing import Final

#: Most values of a frame or a record: the protocol's largest record, 1 MiB (https://atproto.com/specs/data-model),
#: cannot have more. What is no longer than so many bytes need not be counted.
MAX_VALUES: Final = 1 << 20


def has_too_many_values(data: bytes, most: int = MAX_VALUES) -> bool:
    """Return True if a decoder would make more than ``most`` values of ``data``, one or more items. A link is two.

    It counts in a decoder's order, and ends where a decoder refuses: the decoder reports what is not well-formed.
    """
    left, at, end = most, 0, len(data)
    while at < end:
        head = data[at]
        at += 1
        size = head & 31
        if size > 23:
            if size > 27:  # an indefinite length: none in DAG-CBOR
                return False
            width = 1 << size - 24
            if 0x40 <= head < 0x80:
                size = int.from_bytes(data[at : at + width], "big")
            at += width
        if 0x40 <= head < 0x80:  # of bytes and text the head counts, what it holds is passed over
            at += size
        left -= 1
        if left < 0:
            return True
    return False
