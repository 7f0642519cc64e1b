"""What is mutated: frames of a real PDS, and of the generator, and the messages that they become."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.simulator.recording import Frame, read_frames
from streams.simulator.repository import car
from streams.simulator.traffic import Plan, Traffic
from tests.fuzz.cbor import NotStrictError, load, load_all

RECORDING = Path(__file__).parent.parent / "fixtures" / "pds" / "frames.bin.gz"
#: The end of the generated traffic, and the present for the worker (µs): runs must be the same on any day.
END_US = 1_790_000_000_000_000
_GENERATED = Plan(events=700, seed=5, days_span=0.01, end_us=END_US, accounts=40)


@dataclass(frozen=True)
class Seed:
    """A good frame: its bytes, its type and its body."""

    data: bytes
    kind: str
    body: dict[str, Any]


@functools.cache
def frames() -> tuple[Seed, ...]:
    """All seeds, in an order that is always the same."""
    seeds = []
    for data in (*read_frames(RECORDING), *(frame.data for frame in stream())):
        try:
            header, body = load_all(data)
        except NotStrictError as error:  # a seed that the strict reader refuses would be judged by nobody
            raise AssertionError(f"a seed is not strict DAG-CBOR: {error}") from error
        seeds.append(Seed(data, header["t"], body))
    return tuple(seeds)


@functools.cache
def stream() -> tuple[Frame, ...]:
    """The generated frames as a relay sends them, one after the other."""
    return tuple(Traffic(_GENERATED).frames())


@functools.cache
def commits() -> tuple[Seed, ...]:
    """The commits that have operations."""
    return tuple(seed for seed in frames() if seed.kind == "#commit" and seed.body["ops"])


@functools.cache
def small_commits() -> tuple[Seed, ...]:
    """Commits without much around their records: the cheap frame for a hostile record or operation."""
    bare = []
    for seed in commits()[::7]:
        blocks = dict(blocks_of(seed.body["blocks"]))
        ops = [op for op in seed.body["ops"] if op["cid"] is not None and op["cid"].cid in blocks][:3]
        if ops:
            root = seed.body["commit"].cid
            cids = dict.fromkeys([root, *(op["cid"].cid for op in ops)])
            body = {**seed.body, "ops": ops, "blocks": car(root, [(cid, blocks[cid]) for cid in cids if cid in blocks])}
            bare.append(Seed(b"", seed.kind, body))
    return tuple(bare)


@functools.cache
def records() -> tuple[dict[str, Any], ...]:
    """Records of every collection in the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in commits():
        blocks = dict(blocks_of(seed.body["blocks"]))
        for op in seed.body["ops"]:
            if op["cid"] is not None and op["cid"].cid in blocks:
                of_kind = found.setdefault(op["path"].partition("/")[0], [])
                if len(of_kind) < 8:
                    of_kind.append(load(blocks[op["cid"].cid]))
    return tuple(record for of_kind in found.values() for record in of_kind)


def blocks_of(archive: bytes) -> list[tuple[bytes, bytes]]:
    """The sections of a CAR as (CID, block). Raises ValueError where the CAR is not whole."""
    size, at = _varint(archive, 0)
    at += size
    sections = []
    while at < len(archive):
        size, at = _varint(archive, at)
        if size < 36 or at + size > len(archive):
            raise ValueError("a section of the CAR is cut")
        sections.append((archive[at : at + 36], archive[at + 36 : at + size]))
        at += size
    if at != len(archive):
        raise ValueError("the CAR is cut")
    return sections


def _varint(data: bytes, at: int) -> tuple[int, int]:
    for width in range(1, 5):
        if at + width > len(data):
            break
        if data[at + width - 1] < 128:
            return sum((byte & 127) << 7 * i for i, byte in enumerate(data[at : at + width])), at + width
    raise ValueError("a varint that is cut, or too long")
