"""What a stream is, judged by its first messages: a firehose with an odd one, or something else."""

from __future__ import annotations

import json

import pytest

from streams.sources.firehose.foreign import ENOUGH, Doubt, ForeignStreamError
from tests.fuzz import seeds
from tests.fuzz.cbor import dump
from tests.fuzz.through import Ingest

JETSTREAM = json.dumps({"did": "did:plc:a", "time_us": 1, "kind": "commit", "commit": {}}).encode()
LABELS = dump({"op": 1, "t": "#labels"}) + dump({"seq": 5, "labels": []})
INFO = dump({"op": 1, "t": "#info"}) + dump({"name": "OutdatedCursor"})


def ingest() -> Ingest:
    doubt = Doubt("relay.example.com")
    doubt.begin_again()
    return Ingest(filtered=False, doubt=doubt)


def reasons(made: Ingest) -> list[str]:
    return [json.loads(value)["reason"] for key, value in made.tape.messages if key is None]


@pytest.mark.parametrize(
    ("text", "message", "words"),
    [
        (True, JETSTREAM, "a Jetstream?"),
        (True, b' [1, {"a": 2}]', "text messages of JSON"),
        (True, b"<!doctype html><title>404</title>", "HTML: a web server?"),
        (True, b"Request served by 3287", "text messages"),
        (True, b"", "text messages"),
        (False, LABELS, "#labels frames: a labeler"),
        (False, dump({"op": 1, "t": "#post"}) + dump({"seq": 1}), "frames of other types (#post)"),
        (False, dump({"op": 1, "t": "\x1b[31m" + "x" * 5000}) + dump({}), "frames of other types"),
        (False, b"\x28\xb5\x2f\xfd" + bytes(40), "compressed messages: a Jetstream"),
        (False, b"\x1f\x8b" + bytes(40), "compressed messages"),
        (False, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c", "binary messages that are not frames"),
        (False, b"", "binary messages that are not frames"),
        (False, dump({"seq": 1, "did": "did:plc:a"}), "binary messages that are not frames"),
    ],
)
def test_a_stream_of_another_kind_is_named_and_leaves_nothing(text: bool, message: bytes, words: str) -> None:
    made = ingest()
    take = made.intake.text if text else made.intake.frame
    for _ in range(ENOUGH - 1):
        take(message)
    with pytest.raises(ForeignStreamError) as caught:
        take(message)
    sentence = str(caught.value)
    assert words in sentence and "RELAY_URL" in sentence and sentence.isprintable() and len(sentence) < 400
    assert caught.value.exit_code == 5
    assert not made.tape.messages and made.intake.continuity.position == 0, "nothing of it may be in the topic"


@pytest.mark.parametrize("before", range(ENOUGH))
def test_odd_messages_before_the_first_frame_are_dead_letters(before: int) -> None:
    made = ingest()
    for number in range(before):
        if number % 3 == 0:
            made.intake.text(JETSTREAM)
        else:
            made.intake.frame(LABELS if number % 3 == 1 else b"\xff")
    assert not made.tape.messages
    made.intake.frame(seeds.commits()[0].data)
    assert len(reasons(made)) == before == made.counts.dead
    assert [key is None for key, _ in made.tape.messages[:before]] == [True] * before
    for _ in range(100):  # it is a firehose now, whatever else it sends
        made.intake.text(b"x")
        made.intake.frame(LABELS)
    assert len(reasons(made)) >= before + 100


def test_an_info_says_nothing_of_what_a_stream_is() -> None:
    made = ingest()
    for _ in range(ENOUGH - 1):
        made.intake.frame(INFO)
        made.intake.frame(LABELS)
    with pytest.raises(ForeignStreamError):
        made.intake.frame(LABELS)


def test_a_frame_of_the_firehose_proves_it_though_it_is_bad() -> None:
    """Its types are its own: such a frame is a dead letter, and the stream is no other."""
    made = ingest()
    for _ in range(3 * ENOUGH):
        made.intake.frame(dump({"op": 1, "t": "#commit"}) + dump({"no": "seq"}))
    assert len(reasons(made)) == 3 * ENOUGH


def test_at_the_end_odd_messages_alone_are_enough() -> None:
    doubt = Doubt("relay.example.com")
    doubt.check()
    doubt.text(b"hello")
    doubt.check(2)
    with pytest.raises(ForeignStreamError, match="text messages"):
        doubt.check()
    doubt.prove()
    doubt.check()


def test_a_new_connection_is_doubted_again_and_those_that_brought_nothing_add_up() -> None:
    doubt = Doubt("relay.example.com")
    for _ in range(ENOUGH - 1):
        doubt.begin_again()
        doubt.text(b"upstream is away")
    doubt.prove()
    for _ in range(3):
        doubt.begin_again()
        for _ in range(ENOUGH - 1):
            doubt.text(b"x")
    with pytest.raises(ForeignStreamError):
        doubt.text(b"x")
