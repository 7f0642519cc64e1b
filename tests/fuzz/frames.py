"""A case of the frame fuzzer from its number: seeds, and what is done to them. The same number gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from streams.simulator.arrangement import arranged
from streams.simulator.dialects import LOOSE_KINDS
from streams.simulator.faults import CLAIM_KINDS, ORDER_KINDS, Fault
from streams.simulator.repository import cid_of
from tests.fuzz import hostile, seeds
from tests.fuzz.cbor import Link, dump, head, loosely
from tests.fuzz.seeds import Seed

#: How often a case is a heavy one (megabytes), and then nothing else.
HEAVY: Final = 0.0004
_DISORDER: Final = [*ORDER_KINDS, *(kind for kind in CLAIM_KINDS if kind not in LOOSE_KINDS)]


class Case(NamedTuple):
    """Frames that one connection brings, one after the other, and what was done to them."""

    kind: str
    frames: list[bytes]
    #: The same frames in DAG-CBOR's form, where they are in another one: what must come of them.
    meant: list[bytes] | None = None


class InAnotherForm(NamedTuple):
    """A frame, and what it is in DAG-CBOR's form."""

    data: bytes
    meant: bytes


def case(seed: int, number: int) -> Case:
    """The case of this number."""
    r = Random(f"{seed}/frame/{number}")
    if r.random() < HEAVY:
        kind, make = r.choice(_HEAVY)
    else:
        kind, make = r.choices(_KINDS, _WEIGHTS)[0]
    made = make(r)
    if isinstance(made, InAnotherForm):
        return Case(kind, [made.data], [made.meant])
    return Case(kind, made if isinstance(made, list) else [made])


# -- bytes


def _flip(r: Random) -> bytes:
    data = bytearray(r.choice(seeds.frames()).data)
    for _ in range(r.choice((1, 1, 1, 2, 5, 40))):
        data[_place(r, len(data))] ^= 1 << r.randrange(8)
    return bytes(data)


def _place(r: Random, size: int) -> int:
    """Anywhere; every other time near the beginning or the end, where the structure is."""
    x = r.random()
    if x < 0.5:
        return r.randrange(size)
    near = min(size, 400)
    return r.randrange(near) if x < 0.75 else size - 1 - r.randrange(near)


def _cut(r: Random) -> bytes:
    data = r.choice(seeds.frames()).data
    at = _place(r, len(data))
    return data[:at] if r.random() < 0.8 else data[at:]


def _splice(r: Random) -> bytes:
    one, two = (r.choice(seeds.frames()).data for _ in range(2))
    return one[: _place(r, len(one))] + two[_place(r, len(two)) :]


def _insert(r: Random) -> bytes:
    data = r.choice(seeds.frames()).data
    at = _place(r, len(data))
    what = r.choice(hostile.ENCODINGS) if r.random() < 0.5 else r.randbytes(r.choice((1, 2, 8, 100)))
    return data[:at] + what + data[at:]


def _delete(r: Random) -> bytes:
    data = r.choice(seeds.frames()).data
    at = _place(r, len(data))
    return data[:at] + data[at + r.choice((1, 1, 2, 8, 100)) :]


def _repeat_bytes(r: Random) -> bytes:
    data = r.choice(seeds.frames()).data
    at = _place(r, len(data))
    stretch = data[at : at + r.choice((1, 5, 41, 400))]
    return data[:at] + stretch * r.choice((2, 3, 30)) + data[at + len(stretch) :]


def _noise(r: Random) -> bytes:
    x = r.random()
    if x < 0.5:
        return r.randbytes(r.choice((0, 1, 2, 10, 100)))
    return b"".join(r.choice(hostile.ENCODINGS) for _ in range(r.randint(1, 4)))


def _untouched(r: Random) -> bytes:
    return r.choice(seeds.frames()).data


def _in_a_row(r: Random) -> list[bytes]:
    """Frames of one connection: good ones, the same again, earlier ones, later ones with an earlier time."""
    chosen = [r.choice(seeds.frames()) for _ in range(r.randint(2, 4))]
    out = [seed.data for seed in chosen]
    for seed in chosen:
        x = r.random()
        if x < 0.4:
            out.insert(r.randint(0, len(out)), seed.data)
        elif x < 0.7:
            changed = {**seed.body, "seq": r.choice(hostile.SEQS), "time": r.choice(hostile.TIMES)}
            out.insert(r.randint(0, len(out)), encoded(seed.kind, changed))
    return out


# -- structure


def encoded(kind: Any, body: Any, *, ordered: bool = True, op: Any = 1) -> bytes:
    """A frame of this header and body."""
    return dump({"op": op, "t": kind}) + dump(body, ordered=ordered)


def _disorder(r: Random) -> list[bytes]:
    """A piece of a relay's stream, out of order, with seqs and times that are wrong."""
    at = r.randrange(len(seeds.stream()) - 200)
    piece = seeds.stream()[at : at + r.randint(45, 90)]
    faults = [
        Fault(
            r.choice(_DISORDER), after=r.randrange(len(piece)), count=r.choice((1, 2, 5, 20)),
            by=r.choice((1, 3, 17, 40)),
            jump=r.choice((1, 20, 1_000_000, 4_999_999_990)), seconds=r.choice((1, 3600, 0, 1e10)),
        )
        for _ in range(r.choice((1, 1, 2, 5, 20)))
    ]  # fmt: skip
    return [frame.data for frame in arranged(piece, faults)]


def _value(r: Random, field: str) -> Any:
    """A value for a field: a wrong one, or one that only looks right."""
    words = hostile.WORDS.get(field)
    return r.choice(words) if words and r.random() < 0.5 else hostile.cbor_value(r, large=0.0)


_ADDED: Final = (
    "seq",
    "time",
    "did",
    "repo",
    "rev",
    "handle",
    "active",
    "status",
    "ops",
    "blocks",
    "since",
    "zzz",
    "",
    "tooBig",
    "error",
)


def _field(r: Random) -> bytes:
    """One field of any body is wrong, missing, null or new; at times two."""
    seed = r.choice(seeds.frames())
    body = dict(seed.body)
    for _ in range(r.choice((1, 1, 1, 2))):
        x = r.random()
        name = r.choice(list(body)) if body and x < 0.9 else r.choice(_ADDED)
        if x < 0.12:
            body.pop(name, None)
        else:
            body[name] = None if x < 0.2 else _value(r, name)
    return encoded(_kind(r, seed), body, ordered=r.random() < 0.95)


def _kind(r: Random, seed: Seed) -> Any:
    return seed.kind if r.random() < 0.9 else r.choice(hostile.WORDS["t"])


def _header(r: Random) -> bytes:  # noqa: PLR0911 (one a kind)
    seed = r.choice(seeds.frames())
    x = r.random()
    if x < 0.3:
        error = {name: hostile.cbor_value(r) for name in r.sample(("error", "message", "x"), r.randint(0, 3))}
        return dump({"op": -1}) + dump(error, ordered=r.random() < 0.9)
    if x < 0.5:
        return dump({"op": _value(r, "op"), "t": _value(r, "t")}) + dump(seed.body)
    if x < 0.6:
        return dump(_value(r, "header")) + dump(seed.body)
    if x < 0.7:
        return dump({"op": 1, "t": seed.kind}) + dump(_value(r, "body"))
    if x < 0.8:
        return dump({"op": 1, "t": seed.kind, r.choice(hostile.STRINGS): hostile.cbor_value(r)}) + dump(seed.body)
    if x < 0.9:
        return seed.data + r.choice((b"\xa0", b"\0", seed.data, b"\xff"))
    old = {"seq": _value(r, "seq"), "time": r.choice(hostile.TIMES), "name": hostile.cbor_value(r), "message": "old"}
    return encoded(r.choice(("#info", "#handle", "#migrate", "#tombstone")), old)


def _names(r: Random) -> bytes:
    """Hostile DIDs, revs, times and seqs where all else is good."""
    seed = r.choice(seeds.frames())
    body = dict(seed.body)
    for name in r.sample([name for name in hostile.WORDS if name in body], 1 + (r.random() < 0.3)):
        body[name] = r.choice(hostile.WORDS[name])
    return encoded(seed.kind, body)


# -- operations


def _operation(r: Random) -> bytes:
    """One operation of a commit is wrong: a field, its path, its CID, or the whole of it."""
    seed = r.choice(seeds.small_commits() if r.random() < 0.7 else seeds.commits())
    ops = list(seed.body["ops"])
    at = r.randrange(len(ops))
    op = dict(ops[at])
    x = r.random()
    if x < 0.30:
        path = f"{r.choice(hostile.NSIDS)}{r.choice('/////: ')}{r.choice(hostile.RKEYS)}"
        op["path"] = path if r.random() < 0.95 else r.choice(hostile.STRINGS)
    elif x < 0.45:
        op["action"] = r.choice(
            ("create", "update", "delete", "upsert", "", None, "create\0", "DELETE", [], {}, 1, b"create")
        )
    elif x < 0.65:
        op["cid"] = r.choice(
            (None, Link(hostile.CID_PREFIX + r.randbytes(32)), seed.body["commit"], b"", b"x" * 36, "b" * 59, 0, [])
        )
    elif x < 0.75:
        del op[r.choice(list(op))]
    elif x < 0.9:
        op[r.choice(list(op))] = hostile.cbor_value(r, large=0.0)
    ops[at] = op if x < 0.95 else hostile.cbor_value(r, large=0.0)
    if r.random() < 0.2:
        ops.insert(at, seed.body["ops"][at])
    return encoded(seed.kind, {**seed.body, "ops": ops})


def _many(r: Random) -> bytes:
    """The same operations again and again, good and bad ones: to what is taken, and beyond."""
    seed = r.choice(seeds.small_commits())
    op = r.choice(seed.body["ops"])
    bad = {**op, "cid": r.choice((None, Link(hostile.CID_PREFIX + bytes(32))))}
    count = r.choice((4, 200, 999, 1000, 1001))
    ops = [bad if r.random() < 0.3 else {**op, "path": f"app.bsky.feed.post/{i}"} for i in range(count)]
    return encoded(seed.kind, {**seed.body, "ops": ops})


# -- archives


def _archive(r: Random) -> bytes:
    """Blocks that are no CAR: cut, absurd lengths and varints, blocks that are not what their CID says."""
    seed = r.choice(seeds.small_commits())
    blocks = seed.body["blocks"]
    x = r.random()
    if x < 0.15:
        blocks = r.choice(
            (b"", b"\0", b"\x80" * 50, b"\xff" * 50, b"\x80\x80\x80\x80\x10", b"\xff\xff\xff\x7f", r.randbytes(200))
        )
    elif x < 0.3:
        blocks = blocks[: r.randrange(len(blocks))]
    elif x < 0.5:
        lengths = (
            b"\0",
            b"\x01",
            b"\x23",
            b"\x24",
            b"\x80\x00",
            b"\xff" * 9,
            b"\xff\xff\xff\x7f",
            b"\x80" * 40 + b"\x01",
        )
        blocks = r.choice(lengths) + blocks[r.randrange(3) :]
    elif x < 0.6:
        at = r.randrange(len(blocks))
        blocks = blocks[:at] + r.choice((b"\xff" * 9, b"\x80" * 5, b"\0" * 5)) + blocks[at + r.randrange(3) :]
    elif x < 0.8:
        data = bytearray(blocks)
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)
        blocks = bytes(data)
    else:
        sections = seeds.blocks_of(blocks)
        r.shuffle(sections)
        sections = sections * r.choice((1, 2)) if r.random() < 0.6 else sections[1:]
        blocks = archive_of(sections)
    return encoded(seed.kind, {**seed.body, "blocks": blocks})


def archive_of(sections: list[tuple[bytes, bytes]]) -> bytes:
    """A CAR of these sections; its root is nobody's."""
    top = dump({"roots": [Link(hostile.CID_PREFIX + bytes(32))], "version": 1})
    return varint(len(top)) + top + b"".join(varint(36 + len(block)) + cid + block for cid, block in sections)


def varint(number: int) -> bytes:
    """A number as CARs write it."""
    out = b""
    while number > 127:
        out += bytes((number & 127 | 128,))
        number >>= 7
    return out + bytes((number,))


# -- records


def _record(r: Random) -> bytes:
    """A record that is hostile inside, with its right CID."""
    record = dict(r.choice(seeds.records()))
    for _ in range(r.choice((1, 1, 2))):
        x = r.random()
        name = r.choice(list(record)) if record and x < 0.8 else r.choice(hostile.STRINGS)
        if x < 0.1:
            record.pop(name, None)
        else:
            record[name] = r.choice(hostile.TIMES) if x < 0.2 else hostile.cbor_value(r, large=0.0)
    return commit_of(r, dump(record, ordered=r.random() < 0.97))


def _block(r: Random) -> bytes:
    """A block that is no record at all."""
    x = r.random()
    if x < 0.4:
        block = bytearray(dump(r.choice(seeds.records())))
        for _ in range(r.choice((1, 1, 3))):
            block[r.randrange(len(block))] ^= 1 << r.randrange(8)
        return commit_of(r, bytes(block))
    if x < 0.6:
        return commit_of(r, dump(hostile.cbor_value(r, large=0.0)))
    if x < 0.8:
        return commit_of(r, dump(r.choice(seeds.records())) + r.choice(hostile.ENCODINGS))
    return commit_of(r, dump({"$type": "x", "a": hostile.nested(r, r.choice(hostile.DEPTHS)), "b": _links(r)}))


def _links(r: Random) -> Any:
    """Links and byte strings that are hard to tell apart."""
    cid = hostile.CID_PREFIX + r.randbytes(32)
    others = (
        cid,
        b"\0" + cid,
        b"\xd8\x2a\x58\x25\x00" + cid,
        Link(cid),
        Link(b"\x01\x55" + cid[2:]),
        {"$link": "b"},
        {"$bytes": "AA"},
        cid[:20],
    )
    return [r.choice(others) for _ in range(r.choice((1, 2, 5, 40)))]


def commit_of(r: Random, *blocks: bytes) -> bytes:
    """A commit that creates a record of each block."""
    seed = r.choice(seeds.small_commits())
    base = {**seed.body["ops"][0], "action": r.choice(("create", "update"))}
    ops, sections = [], []
    for number, block in enumerate(blocks):
        cid = cid_of(block)
        collection = r.choice(
            ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.actor.profile", "com.example.thing")
        )
        ops.append({**base, "cid": Link(cid), "path": f"{collection}/k{number}"})
        sections.append((cid, block))
    return encoded(seed.kind, {**seed.body, "ops": ops, "blocks": archive_of(sections)})


# -- megabytes


def _heavy_record(r: Random) -> bytes:
    return commit_of(r, dump({"$type": "x", "x": hostile.heavy(r)}))


def _five_megabytes(r: Random) -> bytes:
    return commit_of(
        r, dump({"$type": "x", "text": r.choice(("a", "\0", "é", '"')) * r.choice((2_000_000, 4_900_000))})
    )


def _heavy_field(r: Random) -> bytes:
    seed = r.choice(seeds.frames())
    return encoded(_kind(r, seed), {**seed.body, r.choice(list(seed.body)): hostile.heavy(r)})


def _heavy_error(r: Random) -> bytes:
    return dump({"op": -1}) + dump({"error": hostile.heavy(r), "message": hostile.heavy(r)})


def _ten_thousand(r: Random) -> bytes:
    seed = r.choice(seeds.small_commits())
    return encoded(seed.kind, {**seed.body, "ops": [r.choice(seed.body["ops"])] * 10_000})


def _hash_bomb(r: Random) -> bytes:
    """Few operations, and a CAR in which the CID stands tens of thousands of times, behind what looks like a length."""
    seed = r.choice(seeds.small_commits())
    cid = hostile.CID_PREFIX + r.randbytes(32)
    ops = [{**seed.body["ops"][0], "action": "create", "cid": Link(cid)}] * r.choice((1, 3))
    return encoded(seed.kind, {**seed.body, "ops": ops, "blocks": (b"\xff\x7f" + cid) * r.choice((20_000, 100_000))})


def _scan_bomb(r: Random) -> bytes:
    """Many operations on a CAR of very many sections whose end is cut: each of them might scan it again."""
    seed = r.choice(seeds.small_commits())
    sections = b"".join(b"\x24" + hostile.CID_PREFIX + i.to_bytes(32, "big") for i in range(r.choice((5_000, 60_000))))
    ops = [{**seed.body["ops"][0], "action": "create"}] * r.choice((4, 200, 1000))
    return encoded(seed.kind, {**seed.body, "ops": ops, "blocks": archive_of([]) + sections + b"\x7f"})


def _same_block(r: Random) -> bytes:
    """Many operations that name one large block, which is good, or is bad only at its end."""
    seed = r.choice(seeds.small_commits())
    end = r.choice((b"", b"\xff"))
    block = dump({"$type": "x", "text": "a" * r.choice((50_000, 2_000_000)), "z": 1}) + end
    op = {**seed.body["ops"][0], "action": "create", "cid": Link(cid_of(block))}
    blocks = archive_of([(cid_of(block), block)])
    return encoded(seed.kind, {**seed.body, "ops": [op] * r.choice((2, 200, 1000)), "blocks": blocks})


def _deep_frame(r: Random) -> bytes:
    depth = r.choice((100_000, 1_000_000))
    return r.choice((b"\x81", b"\xa1\x61a", b"\xd8\x2a", b"\x9f")) * depth + b"\0"


def _beyond(r: Random) -> bytes:
    """A good frame that is larger than the protocol allows, or nearly."""
    seed = r.choice(seeds.frames())
    return encoded(seed.kind, {**seed.body, "padding": bytes(r.choice((4_900_000, 6_400_000, 30_000_000)))})


def _long_head(r: Random) -> bytes:
    """A head that promises more than there is, before megabytes."""
    seed = r.choice(seeds.frames())
    return (
        seed.data[:20]
        + head(r.randrange(2, 6), r.choice((1 << 20, 1 << 31, 1 << 40, (1 << 64) - 1)))
        + bytes(2_000_000)
    )


def _another_form(r: Random) -> InAnotherForm:
    """A good frame as a general CBOR library writes it; its blocks stay as they are."""
    seed = r.choice(seeds.frames())
    header = {"op": 1, "t": seed.kind}
    return InAnotherForm(loosely(header, r) + loosely(seed.body, r), dump(header) + dump(seed.body))


Make = Callable[[Random], bytes | list[bytes] | InAnotherForm]

_WEIGHTED: Final[tuple[tuple[str, Make, int], ...]] = (
    ("untouched", _untouched, 4), ("bits flipped", _flip, 14), ("cut", _cut, 6), ("spliced", _splice, 7),
    ("bytes inserted", _insert, 8),
    ("bytes deleted", _delete, 6), ("bytes repeated", _repeat_bytes, 4), ("noise", _noise, 3),
    ("frames in a row", _in_a_row, 3), ("frames in disorder", _disorder, 0),
    ("field wrong", _field, 18), ("header wrong", _header, 6), ("names and times", _names, 9),
    ("operation wrong", _operation, 13),
    ("many operations", _many, 0), ("no CAR", _archive, 9), ("record hostile", _record, 14),
    ("block no record", _block, 8), ("another form of CBOR", _another_form, 6),
)  # fmt: skip
_KINDS: Final = [(name, make) for name, make, _ in _WEIGHTED]
_WEIGHTS: Final = [weight + 0.15 for *_, weight in _WEIGHTED]
_HEAVY: Final[tuple[tuple[str, Make], ...]] = (
    ("heavy record", _heavy_record), ("5 MB record", _five_megabytes), ("heavy field", _heavy_field),
    ("heavy error frame", _heavy_error),
    ("10,000 operations", _ten_thousand), ("CIDs that are no blocks", _hash_bomb), ("CAR of many sections", _scan_bomb),
    ("one block, many operations", _same_block), ("nested 1,000,000 deep", _deep_frame),
    ("promised length", _long_head),
    ("beyond 5 MB", _beyond),
)  # fmt: skip
#: The kinds of cases, in the order of the report.
NAMES: Final = (*(name for name, _ in _KINDS), *(name for name, _ in _HEAVY))
