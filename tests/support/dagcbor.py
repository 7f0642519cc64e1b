"""DAG-CBOR for tests: values with ``bytes`` and links to blocks, and what they are in the protocol's JSON form."""

from __future__ import annotations

import base64
from typing import Any

import cbor2
import libipld


def link(cid: bytes) -> cbor2.CBORTag:
    return cbor2.CBORTag(42, b"\x00" + cid)


def encode(value: Any) -> bytes:
    return cbor2.dumps(_ordered(value))


def _ordered(value: Any) -> Any:
    """Keys by length, then by bytes: DAG-CBOR's order. cbor2's canonical form would also shorten floats."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: _ordered(value[key]) for key in keys}
    return [_ordered(inner) for inner in value] if isinstance(value, list) else value


def decode(block: bytes) -> Any:
    libipld.decode_dag_cbor(block)  # strict, but it does not tell bytes from links
    return cbor2.loads(block)


def json_form(value: Any) -> Any:
    match value:
        case cbor2.CBORTag():
            return {"$link": cid_text(value.value[1:])}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode().rstrip("=")}
        case dict():
            return {key: json_form(inner) for key, inner in value.items()}
        case list():
            return [json_form(inner) for inner in value]
    return value


def cid_text(cid: bytes) -> str:
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")
