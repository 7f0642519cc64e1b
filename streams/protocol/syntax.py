"""The syntax of DIDs, collections and record keys, as far as the hot path must know. Pure.

From https://atproto.com/specs/did, /nsid and /record-key; tests/unit compares these rules with the SDK's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_DID: Final = re.compile(r"did:[a-z]+:[A-Za-z0-9._:%-]{0,2040}[A-Za-z0-9._-]", re.ASCII).fullmatch
_NSID: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})?)+\.[A-Za-z][A-Za-z0-9]{0,62}", re.ASCII
).fullmatch

#: Return a match if the text is a record key: 1 to 512 characters, and neither "." nor "..". It is asked for each
#: operation, so it is the bound method itself: with a function around it, it takes half as long again.
is_rkey: Final = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._:~-]{1,512}", re.ASCII).fullmatch

MAX_DID: Final = 2048
MAX_NSID: Final = 317
#: NSIDs whose answer is kept: the network has a few hundred collections, and each question costs a microsecond.
_KEPT_NSIDS: Final = 4096


def is_did(text: str) -> bool:
    """Return True if the text is a DID of at most 2,048 characters."""
    return len(text) <= MAX_DID and _DID(text) is not None


@lru_cache(maxsize=_KEPT_NSIDS)
def is_nsid(text: str) -> bool:
    """Return True if the text is an NSID of at most 317 characters."""
    return len(text) <= MAX_NSID and _NSID(text) is not None
