"""One case of the message fuzzer from its number: a slice of the topic in which some messages are a stranger's."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from streams.messages import DeadLetter, Gap, RepoEnd, Run, Watermark, dead_payload, encode_control
from streams.sources.firehose.sequence.continuity import Continuity
from tests.fuzz import hostile, seeds
from tests.fuzz.through import NOW, Ingest, Message

#: How often a case is a heavy one (megabytes).
HEAVY: Final = 0.001

Pair = tuple[bytes | None, bytes | None]


class Case(NamedTuple):
    """Consecutive messages of one partition, and what was done to one of them."""

    kind: str
    messages: list[Message]


class Json:
    """JSON text that stands for itself, whatever it is."""

    def __init__(self, text: str | bytes) -> None:
        self.text = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


#: JSON that readers differ about, and some that is none.
TEXTS: Final[tuple[str | bytes, ...]] = (
    "", "null", "true", "false", "0", "-0", "-1", "1.0", "1.5", "1e3", "1E400", "-1e400", "1e-400", "9" * 18, "9" * 19,
    "9" * 20, "9" * 4000,
    "9" * 5000, "-" + "9" * 30, "1." + "0" * 400, "01", "+1", "0x1", ".5", "5.", "1e", "NaN", "Infinity", "-Infinity",
    "nul", "True", "'a'",
    '""', '"\\u0000"', '"a\\u0000b"', '"\\\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83e\\udd8b"', '"\\u12"',
    '"\\x41"', '"\x01"', '"\n"',
    '"a', '"\\"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf5\x80\x80\x80"', b"\xef\xbb\xbf{}", "[]", "[1,]",
    "[", "]", "{}", "{", "}",
    '{"a":1,}', '{"a"}', '{"a":1,"a":2}', '{a:1}', "{1:1}", '{"":{}}', '{"\\u0000":1}', '{"\\ud800":1}',
    '{"a":1e99999}', '{"a":1e130000}',
    '{"a":-1e999999999}', '{"a":1e-99999}', '{"a":' + "9" * 3000 + "}", '{"a":0.' + "1" * 20_000 + "}", '{"a":[{}]}',
    "/**/1", "1 2", "\0", "\x1e1",
    *("[" * n + "]" * n for n in (50, 500, 1500, 3000)), *('{"a":' * n + "1" + "}" * n for n in (50, 500, 1500, 7000)),
    "[" * 10_000,
    '"\u202e"', '"' + "x" * 70_000 + '"', '{"$type":"x","t":"\\u0000\\\\u0000\\\\\\u0000"}',
    '{"$type":"x","t":"\\ufffe\\uffff"}',
)  # fmt: skip


def dump(value: Any) -> bytes:
    """JSON of dicts with texts in them that stand for themselves."""
    if isinstance(value, Json):
        return value.text
    if isinstance(value, dict):
        return b"{" + b",".join(dump(key) + b":" + dump(inner) for key, inner in value.items()) + b"}"
    return json.dumps(value).encode()


@functools.cache
def good() -> tuple[tuple[bytes, bytes], ...]:
    """Messages with a key, as the seeds' frames give them."""
    ingest = Ingest(filtered=False)
    for seed in seeds.frames():
        ingest.intake.continuity = Continuity(0, known=False)  # the seeds are not one sequence
        ingest.take(seed.data)
    return tuple((key, value) for key, value in ingest.tape.messages if key is not None)


@functools.cache
def controls() -> tuple[bytes, ...]:
    """A control message of each kind."""
    base: dict[str, Any] = {"relay": "wss://relay.example.com", "run": NOW}
    start: dict[str, Any] = {
        "asked_from": None,
        "oldest_seq": 1,
        "oldest_time": NOW,
        "from_seq": 1,
        "head_seq": 9,
        "head_time": NOW,
    }
    did = "did:plc:z72i7hdynmk6r22z27h6tvur"
    return (
        encode_control(Watermark(**base, topic_id="t", seq=3, time=NOW)),
        encode_control(Watermark(**base, topic_id="t", seq=0, time=None)),
        encode_control(Run(**base, topic_id="t", mode="start", days=3, **start)),
        encode_control(Gap(**base, from_seq=1, to_seq=2, from_time=None, to_time=NOW, reason="a reset")),
        encode_control(DeadLetter(**base, seq=4, did=did, reason="no CBOR", payload=dead_payload(b"\0\xff"))),
        encode_control(RepoEnd(**base, did=did, rev="3jzfcijpj2z2a", scope="all")),
    )


def case(seed: int, number: int) -> Case:
    """The case of this number."""
    r = Random(f"{seed}/message/{number}")
    kinds = _HEAVY if r.random() < HEAVY else _KINDS
    kind, make = kinds[r.randrange(len(kinds))]
    pairs: list[Pair] = [_good(r) for _ in range(r.choice((0, 0, 1, 2, 6)))]
    pairs.insert(r.randint(0, len(pairs)), make(r))
    if r.random() < 0.2:
        pairs.append(r.choice(pairs))
    base = r.choice((0, 1, 1 << 40))
    return Case(kind, [Message(base + i, key, value) for i, (key, value) in enumerate(pairs)])


def _good(r: Random) -> Pair:
    return r.choice(good()) if r.random() < 0.9 else (None, r.choice(controls()))


def _bytes(r: Random) -> Pair:
    key, value = _good(r)
    assert value is not None
    data = bytearray(value)
    at = r.randrange(len(data))
    match r.randrange(5):
        case 0:
            data[at] ^= 1 << r.randrange(8)
        case 1:
            del data[at:]
        case 2:
            del data[at : at + r.choice((1, 1, 5, 50))]
        case 3:
            text = r.choice(TEXTS)
            data[at:at] = text if isinstance(text, bytes) else text[:2000].encode()
        case _:
            other = r.choice(good())[1]
            data[at:] = other[r.randrange(len(other)) :]
    return key, bytes(data)


def _value(r: Random, field: str) -> Any:
    x = r.random()
    words = {
        **hostile.WORDS,
        "collection": hostile.NSIDS,
        "rkey": hostile.RKEYS,
        "time_us": hostile.NUMBERS,
        "version": hostile.NUMBERS,
    }.get(field)
    if words and x < 0.5:
        return r.choice(words)
    if x < 0.85:
        return Json(r.choice(TEXTS))
    return r.choice((*hostile.STRINGS, *hostile.SEQS, None, True, 1.5))


def _field(r: Random) -> Pair:
    """One field of an event is wrong, missing, null, twice or new; the key follows the DID, or not."""
    key, value = r.choice(good())
    event = json.loads(value)
    body = event if r.random() < 0.4 else event[event["kind"]]
    x = r.random()
    name = (
        r.choice(list(body))
        if x < 0.93
        else r.choice(("commit", "identity", "account", "sync", "kind", "zzz", "", "rev", "cid"))
    )
    if x < 0.1:
        body.pop(name, None)
    else:
        body[name] = None if x < 0.17 else _value(r, name)
    if name == "did" and isinstance(body.get("did"), str) and r.random() < 0.8:
        key = body["did"].encode("utf-8", "surrogatepass")
        if isinstance(event[event["kind"]], dict):
            event[event["kind"]]["did"] = event["did"] = body["did"]
    return key, dump(event)


def _record(r: Random) -> Pair:
    """The record of a commit is any JSON."""
    while True:
        key, value = r.choice(good())
        event = json.loads(value)
        if "record" in event.get("commit", ()):
            break
    record = event["commit"]["record"]
    if r.random() < 0.4:
        event["commit"]["record"] = Json(r.choice(TEXTS))
    else:
        record[r.choice(list(record))] = Json(r.choice(TEXTS))
    return key, dump(event)


def _key(r: Random) -> Pair:
    key, value = r.choice(good())
    return r.choice(
        (
            None,
            b"",
            b"k",
            key + b"\0",
            key[:-1],
            key.upper(),
            b"\xff\xfe",
            b"did:plc:" + b"x" * 70_000,
            r.choice(good())[0],
        )
    ), value


def _no_event(r: Random) -> Pair:
    text = r.choice(TEXTS)
    value = text if isinstance(text, bytes) else text.encode()
    return r.choice((None, b"k", good()[0][0])), r.choice((value, None, b"", value, r.randbytes(20)))


def _control(r: Random) -> Pair:
    """A control message with something wrong."""
    message = json.loads(r.choice(controls()))
    for _ in range(r.choice((1, 1, 2))):
        x = r.random()
        name = r.choice(list(message)) if message and x < 0.95 else r.choice(hostile.STRINGS)
        if x < 0.1:
            message.pop(name, None)
        else:
            message[name] = None if x < 0.15 else _value(r, name)
    return None, dump(message)


def _version(r: Random) -> Pair:
    """A format that is not ours: newer ones stop the program, by design."""
    message = json.loads(r.choice(controls()))
    message["version"] = r.choice(
        (0, 1, 2, 99, 1 << 40, -1, True, None, "2", 2.0, 1.5, Json("9" * 30), Json("1e400"), Json("2.0"))
    )
    if r.random() < 0.5:
        message["kind"] = r.choice(("news", "watermark", "", "\0", "commit", 1, None))
    return None, dump(message)


def _topic_id(r: Random) -> Pair:
    message = json.loads(controls()[r.choice((0, 1, 2))])
    message["topic_id"] = r.choice(("t", "t", "u", "", "\0", "x" * 70_000, "\u202e", 1, None))
    return None, dump(message)


def _heavy_record(r: Random) -> Pair:
    key, value = next(pair for pair in good() if b'"record"' in pair[1])
    event = json.loads(value)
    part, size = r.choice((("[],", 3), ("{},", 3), ('"\\u0000",', 9), ("1,", 2), ('"x",', 4))), 3_000_000
    event["commit"]["record"] = Json('{"a":[' + part[0] * (size // part[1]) + "0]}")
    return key, dump(event)


def _heavy_text(r: Random) -> Pair:
    key, value = r.choice(good())
    event = json.loads(value)
    body = r.choice((event, event[event["kind"]]))
    body[r.choice(list(body))] = r.choice(("x", "\0", "\u202e")) * 1_000_000
    return key, dump(event)


def _heavy_depth(r: Random) -> Pair:
    return r.choice((None, good()[0][0])), r.choice((b"[", b'{"a":', b'{"commit":', b'{"kind":[')) * 1_000_000


Make = Callable[[Random], Pair]

_KINDS: Final[tuple[tuple[str, Make], ...]] = (
    ("untouched", _good), ("bytes", _bytes), ("bytes", _bytes), ("field wrong", _field), ("field wrong", _field),
    ("field wrong", _field),
    ("record hostile", _record), ("key wrong", _key), ("no event", _no_event), ("control wrong", _control),
    ("control wrong", _control),
    ("version", _version), ("topic id", _topic_id),
)  # fmt: skip
_HEAVY: Final[tuple[tuple[str, Make], ...]] = (
    ("heavy record", _heavy_record),
    ("heavy text", _heavy_text),
    ("nested 1,000,000 deep", _heavy_depth),
)
#: The kinds of cases, in the order of the report.
NAMES: Final = tuple(dict.fromkeys(name for name, _ in (*_KINDS, *_HEAVY)))
