"""A record's DAG-CBOR in the protocol's JSON form (https://atproto.com/specs/data-model). Pure; the hot path.

Bytes become ``{"$bytes": …}`` and links ``{"$link": …}``. The fast decoder gives plain ``bytes`` for both: which of
them a value is, is read from the block. Where that is not beyond doubt, a slower decoder tells the two apart.
"""

from __future__ import annotations

from binascii import b2a_base64
from functools import partial
from typing import Any, Final

import cbor2
import libipld
import orjson

#: First bytes of a CID (version 1; version 0 is a bare sha2-256 multihash). Other bytes are not a link.
_CID_STARTS: Final = (b"\x01", b"\x12")
#: What DAG-CBOR writes before the 36 bytes of a CID with a SHA-256 hash: tag 42, the head of 37 bytes, 0x00.
_LINK_HEAD: Final = b"\xd8\x2a\x58\x25\x00"
#: Each link is looked for in the whole block: with more of them than this, decoding again is cheaper.
_MAX_SEARCHED: Final = 16

_multibase = libipld.encode_multibase
_dumps = orjson.dumps

#: Strict: UTF-8, keys that are strings, sorted and unique, no NaN, nothing behind the value. Raises ValueError, and
#: RecursionError on a block nested too deep.
decode_record = libipld.decode_dag_cbor


class _Unclear(Exception):  # noqa: N818 (no error: a question for the slower decoder)
    """A value that may be bytes or a link."""


def encode_with_record(message: dict[str, Any], holder: dict[str, Any], block: bytes) -> bytes:
    """Return ``message`` as JSON. ``holder``, somewhere in it, has as ``record`` what decode_record made of ``block``.

    There must be no ``bytes`` in the message but the record's. Raises TypeError where JSON cannot say it: nested over
    254 levels, integers over 64 bits.
    """
    try:
        return _dumps(message, default=partial(_form, block))
    except TypeError as error:
        if type(error.__cause__) is not _Unclear:
            raise
    holder["record"] = None  # not both decoders' values at once
    holder["record"] = cbor2.loads(block, tag_hook=_link_of_tag)
    return _dumps(message, default=_bytes_form)


def _form(block: bytes, value: bytes) -> dict[str, str]:
    """Return the JSON form of a byte string of the block: a link or bytes. Raises _Unclear.

    A value that occurs once in the block, behind the head of a link, is that link: no head of bytes (shorter than
    hundreds of megabytes) ends with the same bytes. Other cases are unclear: the fast decoder allows heads that are
    longer than necessary, and another string may hold anything, even a CID with either head before it.
    """
    if not value.startswith(_CID_STARTS):
        return _bytes_form(value)
    at = block.find(value)
    if block[at - 5 : at] != _LINK_HEAD or block.find(value, at + 1) != -1 or block.count(_LINK_HEAD) > _MAX_SEARCHED:
        raise _Unclear
    return {"$link": _multibase("b", value)}


def _bytes_form(value: bytes) -> dict[str, str]:
    return {"$bytes": b2a_base64(value, newline=False).rstrip(b"=").decode()}


def _link_of_tag(tag: cbor2.CBORTag, _immutable: bool) -> dict[str, str]:
    """Return the JSON form of a link, in the slower decoder. The fast one has refused tags that are not links."""
    return {"$link": _multibase("b", tag.value[1:])}
