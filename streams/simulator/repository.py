"""A repository's blocks as they go over the wire: records, MST nodes, commits, their CIDs, and the CAR that holds them.

Every block is valid DAG-CBOR and every CID is right; the path from the commit's root node to the records is linked
node by node. Beside that path the nodes hold filler made once: no real tree is kept, which makes a commit cost
microseconds. Signatures are random bytes.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any, Final

import cbor2
import libipld

#: The start of a CIDv1 of DAG-CBOR with a SHA-256 hash.
CID_PREFIX: Final = b"\x01\x71\x12\x20"
_LINK_TAG: Final = 42
_LINK: Final = b"\xd8\x2a\x58\x25\x00"
_CAR_HEAD: Final = b"\x3a\xa2\x65roots\x81" + _LINK
_CAR_TAIL: Final = b"\x67version\x01"
_S32: Final = "234567abcdefghijklmnopqrstuvwxyz"
_S32_PAIRS: Final = [a + b for a in _S32 for b in _S32]
#: Most record entries that are put into one leaf.
_LEAF_ENTRIES: Final = 16


#: DAG-CBOR of a value with ``bytes`` and ``link()``s; no floats: there RFC 7049's canonical form is another.
encode_value = partial(cbor2.dumps, canonical=True)


def encode(value: Any) -> bytes:  # noqa: ANN401 (any JSON)
    """DAG-CBOR of a value in the API's JSON form (``$link``, ``$bytes``); no floats."""
    return encode_value(_from_json(value))


def _from_json(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    if type(value) is dict:
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key == "$link":
                return link(libipld.decode_multibase(inner)[1])
            if key == "$bytes":
                return a2b_base64(inner + "==")
        return {key: _from_json(inner) for key, inner in value.items()}
    return [_from_json(inner) for inner in value] if type(value) is list else value


def cid_of(block: bytes) -> bytes:
    """The 36 bytes of a block's CID."""
    return CID_PREFIX + sha256(block).digest()


def cid_text(cid: bytes) -> str:
    """A CID as text (base32)."""
    return str(libipld.encode_multibase("b", cid))


def link(cid: bytes | None) -> Any:  # noqa: ANN401 (the library's own type)
    """A CID as a link, for ``encode_value``; None stays None."""
    return None if cid is None else cbor2.CBORTag(_LINK_TAG, b"\x00" + cid)


def tid(time_us: int, clock: int) -> str:
    """A TID: 13 characters that sort as (microseconds, clock id)."""
    v, pairs = time_us << 10 | clock, _S32_PAIRS
    return (
        _S32[v >> 60 & 15]
        + pairs[v >> 50 & 1023]
        + pairs[v >> 40 & 1023]
        + pairs[v >> 30 & 1023]
        + pairs[v >> 20 & 1023]
        + pairs[v >> 10 & 1023]
        + pairs[v & 1023]
    )


def _head(major: int, value: int) -> bytes:
    """A CBOR item's head, for values below 65,536."""
    if value < 24:
        return bytes((major | value,))
    return bytes((major | 24, value)) if value < 256 else bytes((major | 25, value >> 8, value & 255))


def _section(cid: bytes, block: bytes) -> bytes:
    """One block of a CAR: length as a varint, CID, bytes."""
    size, head = len(block) + 36, b""
    while size > 127:
        head += bytes((size & 127 | 128,))
        size >>= 7
    return head + bytes((size,)) + cid + block


def car(root: bytes, blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A CAR (v1) of ``(cid, block)`` with one root."""
    return _CAR_HEAD + root + _CAR_TAIL + b"".join([_section(cid, block) for cid, block in blocks])


def _entry(key: bytes, shared: int, value: bytes, subtree: bytes | None) -> bytes:
    """One entry of an MST node; the keys k, p, t, v are in canonical order."""
    return b"".join((
        b"\xa4\x61k", _head(0x40, len(key)), key, b"\x61p", _head(0, shared), b"\x61t",
        _LINK + subtree if subtree else b"\xf6", b"\x61v", _LINK, value,
    ))  # fmt: skip


def _node(count: int, entries: bytes, left: bytes | None) -> bytes:
    """An MST node: ``{e: entries, l: left subtree}``."""
    return b"\xa2\x61e" + _head(0x80, count) + entries + b"\x61l" + (_LINK + left if left else b"\xf6")


class TreeMaker:
    """Makes the MST nodes of a commit out of prepared filler. Seeded: the same calls give the same nodes."""

    def __init__(self, random: Random, variants: int = 256) -> None:
        self._random = random
        self._fillers = [self._filler(subtrees=False) for _ in range(variants)]
        self._inner_fillers = [self._filler(subtrees=True) for _ in range(variants)]

    def _filler(self, *, subtrees: bool) -> tuple[int, bytes]:
        r = self._random
        count = r.randint(4, 12)
        entries = b"".join(
            _entry(
                tid(r.getrandbits(53), 7).encode()[r.randint(0, 8) :],
                r.randint(15, 28),
                CID_PREFIX + r.randbytes(32),
                CID_PREFIX + r.randbytes(32) if subtrees and r.random() < 0.5 else None,
            )
            for _ in range(count)
        )
        return count, entries

    def path(self, records: Sequence[tuple[str, bytes]], depth: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The nodes from the root down to ``records`` (path, cid): the root's CID, and the blocks, root first."""
        blocks: list[tuple[bytes, bytes]] = []
        children: list[bytes] = []
        for start in range(0, max(1, len(records)), _LEAF_ENTRIES):
            own = records[start : start + _LEAF_ENTRIES]
            count, filler = self._random.choice(self._fillers)
            entries = b"".join([_entry(path.encode(), 0, cid, None) for path, cid in own]) + filler
            block = _node(count + len(own), entries, None)
            children.append(cid_of(block))
            blocks.append((children[-1], block))
        for _ in range(max(depth, 1 if len(children) > 1 else 0)):
            count, filler = self._random.choice(self._inner_fillers)
            own_entries = [
                _entry(b"app.bsky.feed.like/%d" % i, 0, child, child) for i, child in enumerate(children[1:])
            ]
            block = _node(count + len(own_entries), b"".join(own_entries) + filler, children[0])
            children = [cid_of(block)]
            blocks.append((children[0], block))
        blocks.reverse()
        return children[0], blocks


def commit_block(did: str, rev: str, data: bytes, signature: bytes) -> bytes:
    """A signed commit object (repository version 3) over the tree whose root is ``data``."""
    return encode_value({"did": did, "rev": rev, "sig": signature, "data": link(data), "prev": None, "version": 3})
