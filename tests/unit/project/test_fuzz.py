"""The fuzzers' short form, what they found once, and that they find what is wrong."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.errors import MismatchError
from streams.kafka.topic import MAX_MESSAGE_BYTES
from streams.messages import DeadLetter, encode_control
from streams.postgres import batch
from streams.postgres.batch import BatchBuilder
from streams.protocol import events, frames
from streams.protocol.frames import ErrorFrame, FrameError, Scan, search_block, split_frame
from streams.simulator.repository import cid_of
from tests.fuzz import check, hostile, messages, run, seeds, slices
from tests.fuzz import frames as cases
from tests.fuzz.cbor import Link, NotStrictError, Raw, dump, load
from tests.fuzz.run import Fuzzer
from tests.fuzz.through import NOW, Ingest, Message, Worker

FRAMES = 1500
SLICES = 700
SEED = 3
DID = "did:plc:z72i7hdynmk6r22z27h6tvur"


@pytest.mark.parametrize(("name", "count"), [("frame", FRAMES), ("message", SLICES)])
def test_whatever_comes_is_accounted_for(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that runs other things must not fail the test; the long form is strict.
    monkeypatch.setattr(run, "LIMIT", 5.0)
    monkeypatch.setattr(run, "HEAVY_LIMIT", 15.0)
    result = Fuzzer(name, SEED).run(0, count)
    assert not result.failures, result.failures
    assert result.cases == count
    assert {"row", "dead", "account", "filtered"} <= set(result.fates)


@pytest.mark.parametrize("make", [make for _, make in cases._HEAVY], ids=[name for name, _ in cases._HEAVY])
def test_megabytes_are_accounted_for(make: cases.Make) -> None:
    made = make(Random(1))
    check.check_case(cases.Case("heavy", made if isinstance(made, list) else [made]), 0, Worker())


def test_the_same_number_gives_the_same_case() -> None:
    for number in range(50):
        assert cases.case(SEED, number) == cases.case(SEED, number) != cases.case(SEED + 1, number)
        assert messages.case(SEED, number) == messages.case(SEED, number)


# -- the oracle itself: each of these faults, put into the product, must be seen


def _first_of(original: Callable[..., events.Events]) -> Callable[..., events.Events]:
    def wrong(*args: Any) -> events.Events:
        made = original(*args)
        return made._replace(values=made.values[:1])

    return wrong


def _without_bad(original: Callable[..., events.Events]) -> Callable[..., events.Events]:
    return lambda *args: original(*args)._replace(bad=[])


def _unchecked(index: dict[bytes, tuple[int, int]], car: bytes, cid: bytes) -> bytes:
    return car[slice(*index[cid])]


def _plain(message: dict[str, Any], holder: dict[str, Any], block: bytes) -> bytes:
    return json.dumps(message, default=lambda value: {"$bytes": ""}).encode()


FAULTS: list[tuple[str, str, Any, Any]] = [
    ("frame", "an operation lost", events, ("_commit", _first_of)),
    ("frame", "a bad operation swallowed", events, ("_commit", _without_bad)),
    ("frame", "every key is taken", events, ("is_rkey", lambda _: lambda text: True)),
    ("frame", "a good key is refused", events, ("is_nsid", lambda _: lambda text: len(text) < 15)),
    ("frame", "hashes are not compared", frames, ("checked_block", lambda _: _unchecked)),
    ("frame", "bytes for links", events, ("encode_with_record", lambda _: _plain)),
    ("message", "every rev is taken", batch, ("is_tid", lambda _: lambda text: True)),
    ("message", "the key is not looked at", batch, ("is_did", lambda _: lambda text: True)),
    ("message", "a decoder's error goes through", batch, ("UNDECODABLE", lambda _: (UnicodeDecodeError,))),
    ("message", "a message without a trace", batch, ("_bury", lambda _: lambda *_: None)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "what", "module", "fault"), FAULTS, ids=[fault[1] for fault in FAULTS])
def test_a_fault_in_the_product_is_seen(
    name: str, what: str, module: Any, fault: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, fault[0], fault[1](getattr(module, fault[0])))
    fuzzer = Fuzzer(name, SEED)
    assert any(fuzzer.one(number) for number in range(1200)), f"nobody saw: {what}"


# -- properties of hostile values that a fixed list does not have

_leaves: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.floats(width=64)
    | st.text(max_size=8) | st.binary(max_size=8) | st.sampled_from(hostile.ENCODINGS).map(Raw)
    | st.binary(min_size=32, max_size=32).map(lambda digest: Link(hostile.CID_PREFIX + digest))
)  # fmt: skip
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record=_values, ordered=st.booleans(), number=st.integers(0, 1000))
def test_any_cbor_as_a_record(record: Any, ordered: bool, number: int) -> None:
    frame = cases.commit_of(
        Random(number), dump(record, ordered=ordered), dump({"$type": "x", "held": record}, ordered=ordered)
    )
    check.check_case(cases.Case("record", [frame]), number, Worker())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_cbor_in_any_field_of_any_frame(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(_ONE_OF_EACH))
    body = {**seed.body, data.draw(st.sampled_from(sorted(seed.body))): data.draw(_values)}
    check.check_case(cases.Case("field", [cases.encoded(seed.kind, body)]), data.draw(st.integers(0, 9)), Worker())


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(messages.TEXTS).map(messages.Json),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_json_in_any_field_of_any_message(data: st.DataObject) -> None:
    key, value = data.draw(st.sampled_from([*messages.good()[:40], *((None, value) for value in messages.controls())]))
    message = json.loads(value)
    body = data.draw(st.sampled_from([message, *(inner for inner in message.values() if isinstance(inner, dict))]))
    body[data.draw(st.sampled_from(sorted(body)))] = data.draw(_json)
    try:
        text = messages.dump(message)
    except (TypeError, ValueError):  # a hostile text stands within what the standard library writes
        return
    slices.check(Worker(), [Message(0, key, text)], Random(0), filtered=False)


@given(record=_values)
def test_the_strict_reader_reads_what_the_other_readers_read(record: Any) -> None:
    block = dump(record)
    try:
        value = load(block)
    except NotStrictError:
        return
    assert dump(value) == block
    assert cbor2.loads(block) is not None or value is None
    assert type(events.decode_record(block)) in (type(value), bytes)


_ONE_OF_EACH = list({seed.kind: seed for seed in seeds.frames() if seed.kind != "#commit" or seed.body["ops"]}.values())


# -- what the fuzzers found


def identity(**more: Any) -> bytes:
    return cases.encoded("#identity", {"did": DID, "seq": 7, "time": "2026-11-23T18:59:24.627Z", **more})


def commit(ops: list[Any], blocks: bytes) -> dict[str, Any]:
    return {"repo": DID, "rev": "3n2yssnqxuk2c", "since": None, "blocks": blocks, "ops": ops}


def creates(cid: bytes, count: int) -> list[dict[str, Any]]:
    return [{"action": "create", "path": f"app.bsky.feed.post/{i}", "cid": cid} for i in range(count)]


def test_what_is_too_large_for_the_topic_is_a_dead_letter() -> None:
    """Kafka refuses the batch, the ingest goes back to the last watermark, and meets the frame again: for ever."""
    for field in ("handle", "time"):
        ingest = Ingest(filtered=False)
        assert ingest.take(identity(**{field: "\0" * 2_000_000})) is None
        (message,) = ingest.tape.messages
        assert message[0] is None and len(message[1]) < MAX_MESSAGE_BYTES
        assert "too large" in json.loads(message[1])["reason"]


@pytest.mark.parametrize("kind", ["#info", "#handle", "#migrate", "#tombstone"])
@pytest.mark.parametrize("seq", [True, -1, 1 << 53, (1 << 64) - 1])
def test_a_skipped_frame_does_not_move_us_to_where_no_seq_is(kind: str, seq: Any) -> None:
    """All that comes after it would count as seen before, and no watermark could be read."""
    ingest = Ingest(filtered=False)
    ingest.take(cases.encoded(kind, {"seq": seq, "name": "x"}))
    assert (ingest.intake.continuity.position, ingest.counts.skipped_types) == (0, Counter({kind: 1}))
    ingest.take(identity())
    assert (ingest.counts.events, ingest.counts.seen) == (1, 0)
    ingest.take(cases.encoded(kind, {"seq": 8}))
    ingest.intake.accept_pending()
    assert ingest.intake.continuity.position == 8


def test_an_error_frame_is_told_in_bounded_printable_text() -> None:
    deep = Raw(b"\x81" * 900 + b"\x00")
    for error in ("\x1b[31m\0\n" * 50_000, deep, {"x": deep}, [1] * 100_000, 7, None):
        with pytest.raises(ErrorFrame) as caught:
            split_frame(dump({"op": -1}) + dump({"error": error, "message": error}))
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_deep_values_where_words_belong_are_no_crash() -> None:
    deep = Raw(b"\x81" * 980 + b"\x00")
    for header in ({"op": deep, "t": "#commit"}, {"op": 1, "t": deep}):
        with pytest.raises(FrameError):
            split_frame(dump(header) + dump({"seq": 1}))
    ops = [
        {"action": deep, "path": "app.bsky.feed.post/a", "cid": None},
        {"action": "create", "path": deep, "cid": None},
    ]
    ingest = Ingest(filtered=False)
    ingest.take(cases.encoded("#commit", {**commit(ops, b""), "seq": 1, "time": ""}))
    assert (ingest.counts.events, ingest.counts.dead) == (0, 2)


def test_a_frame_beyond_what_the_protocol_allows_is_not_decoded() -> None:
    """Decoded, it would take many times its size in memory."""
    with pytest.raises(FrameError, match="more than any may have"):
        split_frame(identity(padding=bytes(7_000_000)))
    assert split_frame(identity(padding=bytes(5_000_000)))[0] == "#identity"


def cpu(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def test_a_broken_car_of_many_sections_is_scanned_once() -> None:
    sections = b"".join(b"\x24" + hostile.CID_PREFIX + i.to_bytes(32, "big") for i in range(5000))
    car = cases.archive_of([]) + sections + b"\x7f"
    once = cpu(lambda: _fails(lambda: Scan(car).block(b"nobody")))
    made: list[events.Events] = []
    all_of_them = cpu(
        lambda: made.append(events.decode_events("#commit", commit(creates(cid_of(b"x"), 500), car), 1, 1, None))
    )
    assert len(made[0].bad) == 500
    assert all_of_them < 50 * once + 0.5  # each scanned it twice before: 1,000 times


def test_a_car_full_of_one_cid_is_not_hashed_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = 0
    original = frames.sha256

    def counting(block: bytes) -> Any:
        nonlocal hashed
        hashed += 1
        return original(block)

    monkeypatch.setattr(frames, "sha256", counting)
    cid = cid_of(b"nowhere")
    assert search_block((b"\xff\x7f" + cid) * 20_000, cid) is None
    assert 0 < hashed < 1000
    hashed = 0
    scan = Scan(cases.archive_of([(cid, b"another block")]))
    for _ in range(10):
        _fails(lambda: scan.block(cid))
    assert hashed == 1


def _fails(call: Callable[[], object]) -> None:
    with pytest.raises(FrameError):
        call()


def test_the_evidence_of_bad_operations_is_bounded() -> None:
    """Each bad operation keeps its block: a thousand times two megabytes, where they name the same."""
    block = dump({"text": "a" * 1_000_000}) + b"\xff"
    car = cases.archive_of([(cid_of(block), block)])
    assert len(events.decode_events("#commit", commit(creates(cid_of(block), 20), car), 1, 1, None).bad) == 20
    with pytest.raises(FrameError, match="bytes of events and dead letters"):
        events.decode_events("#commit", commit(creates(cid_of(block), 200), car), 1, 1, None)


def test_of_a_broken_car_what_can_be_read_is_used() -> None:
    good = dump({"$type": "x"})
    car = cases.archive_of([(cid_of(good), good)]) + b"\x7f"
    made = events.decode_events(
        "#commit", commit([*creates(cid_of(good), 5), *creates(cid_of(b"x"), 1)], car), 1, 1, None
    )
    assert (len(made.values), [bad.reason for bad in made.bad]) == (
        5,
        ["create app.bsky.feed.post/0: a section of the CAR is cut"],
    )


def test_a_version_of_thousands_of_digits_is_a_short_sentence() -> None:
    value = b'{"kind":"watermark","relay":"","run":1,"topic_id":"t","seq":1,"time":1,"version":' + b"9" * 4000 + b"}"
    with pytest.raises(MismatchError) as caught:
        BatchBuilder().build([Message(0, None, value)], NOW)
    assert len(str(caught.value)) < 200


def test_a_dead_letter_without_a_reason_gets_one() -> None:
    value = encode_control(DeadLetter(relay="", run=1, seq=1, did=None, reason="", payload=""))
    assert BatchBuilder().build([Message(0, None, value)], NOW).dead[0]["reason"]


def test_a_time_that_postgres_would_round_into_the_year_10000_is_refused() -> None:
    value = json.dumps(
        {"did": DID, "kind": "identity", "time_us": 253_402_300_799_999_999, "identity": {"did": DID, "handle": "a.b"}}
    )
    assert "time_us" in BatchBuilder().build([Message(0, DID.encode(), value.encode())], NOW).dead[0]["reason"]
