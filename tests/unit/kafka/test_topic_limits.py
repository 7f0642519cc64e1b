"""What is said of a topic that somebody else made, of a broker that refuses, and of a record that does not fit."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    TopicAuthorizationFailedError,
)

from streams.errors import BrokerError, MismatchError
from streams.kafka.oversized import RefusedRecord, letter_for
from streams.kafka.refusals import MOST_REFUSALS, Refusals
from streams.kafka.topic import MAX_MESSAGE_BYTES
from streams.kafka.topic_limits import command, judge, takes
from streams.kafka.versions import understands
from streams.messages import DeadLetter, Watermark, encode_control
from streams.settings import Settings

GOOD = {
    "max.message.bytes": "8388608", "cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1", "compression.type": "producer",
    "segment.bytes": "1073741824", "unclean.leader.election.enable": "false",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "fatal", "mend"),
    [
        ({"cleanup.policy": "compact"}, True, "cleanup.policy=delete"),
        ({"cleanup.policy": "compact,delete"}, True, "cleanup.policy=delete"),
        ({"max.message.bytes": "1048588"}, False, "max.message.bytes=8388608"),
        ({"max.message.bytes": "10000"}, True, "max.message.bytes=8388608"),
        ({"segment.bytes": "1048576"}, False, "segment.bytes=8388608"),
        ({"segment.bytes": "14"}, True, "segment.bytes=8388608"),
        ({"retention.ms": "1000"}, True, "retention.ms=604800000"),
        ({"retention.ms": "0"}, True, "retention.ms=604800000"),
        ({"retention.ms": "3600000"}, False, "retention.ms=604800000"),
        ({"retention.bytes": "1000000"}, False, "retention.bytes=-1"),
        ({"message.timestamp.type": "CreateTime"}, False, "message.timestamp.type=LogAppendTime"),
        ({"message.timestamp.type": "CreateTime", "message.timestamp.before.max.ms": "1000"}, True,
         "message.timestamp.type=LogAppendTime"),
        ({"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "0"}, True,
         "message.timestamp.type=LogAppendTime"),
        ({"message.timestamp.type": "CreateTime", "message.timestamp.difference.max.ms": "5"}, True,
         "message.timestamp.type=LogAppendTime"),
        ({"min.insync.replicas": "2"}, True, "min.insync.replicas=1"),
        ({"compression.type": "gzip"}, False, "compression.type=producer"),
        ({"compression.type": "uncompressed"}, False, "compression.type=producer"),
        ({"message.format.version": "0.10.2-IV0"}, True, "message.format.version=3.0"),
        ({"unclean.leader.election.enable": "true"}, False, "unclean.leader.election.enable=false"),
    ],
)  # fmt: skip
def test_a_setting_that_differs(changes: dict[str, str], fatal: bool, mend: str) -> None:
    faults = judge({**GOOD, **changes}, 1)
    assert (faults[0].fatal, faults[0].mend) == (fatal, mend)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"retention.ms": "-1"}, {"compression.type": "zstd"}, {"max.message.bytes": "99999999"},
        {"message.timestamp.before.max.ms": "0"}, {"message.format.version": "3.0-IV1"}, {"retention.ms": "?"},
    ],
)  # fmt: skip
def test_a_topic_that_is_good(changes: dict[str, str]) -> None:
    assert judge({**GOOD, **changes}, 1) == []


def test_replicas_and_a_topic_of_which_nothing_is_known() -> None:
    assert judge({**GOOD, "min.insync.replicas": "2"}, 3) == []
    [fault] = judge({**GOOD, "min.insync.replicas": "4"}, 3)
    assert fault.mend == "min.insync.replicas=2"
    assert [fault.fatal for fault in judge({}, 1)] == [False]  # the time of its messages


def test_what_it_takes_at_a_time() -> None:
    assert takes(GOOD) == takes({}) == MAX_MESSAGE_BYTES
    assert takes({**GOOD, "max.message.bytes": "1048588"}) == 1048588
    assert takes({**GOOD, "segment.bytes": "1048576"}) == 1048576


def test_the_command_is_whole() -> None:
    made = Settings(_env_file=None, kafka_bootstrap_servers="a:1,b:2")  # type: ignore[call-arg]
    assert command(made, "t", "x=1,y=2") == (
        "kafka-configs.sh --bootstrap-server a:1,b:2 --alter --entity-type topics --entity-name t --add-config x=1,y=2"
    )


# -- a broker that refuses


def test_the_same_refusal_again_and_again_is_the_end() -> None:
    refusals = Refusals()
    for _ in range(MOST_REFUSALS - 1):
        refusals.note(TopicAuthorizationFailedError("t"), "t", further=False)
    with pytest.raises(BrokerError, match=r"5 times for the same reason .*TopicAuthorizationFailed.*rights") as end:
        refusals.note(TopicAuthorizationFailedError("t"), "t", further=False)
    assert end.value.exit_code == 3


@pytest.mark.parametrize(
    "failure",
    [
        KafkaConnectionError(), NotEnoughReplicasError(), InvalidTimestampError(), MessageSizeTooLargeError(),
        asyncio.CancelledError(), TimeoutError(), None,
    ],
)  # fmt: skip
def test_what_may_pass_is_waited_for(failure: BaseException | None) -> None:
    refusals = Refusals()
    for _ in range(MOST_REFUSALS * 10):
        refusals.note(failure, "t", further=False)


def test_another_reason_or_progress_begins_the_count_again() -> None:
    refusals = Refusals()
    for _ in range(MOST_REFUSALS * 3):
        refusals.note(KafkaError(), "t", further=False)
        refusals.note(TopicAuthorizationFailedError("t"), "t", further=False)
    for turn in range(MOST_REFUSALS * 3):
        refusals.note(KafkaError(), "t", further=turn % 3 == 0)


# -- a record that does not fit

RUN = Watermark(relay="r", run=5, topic_id="t", seq=0, time=None)


def test_the_letter_of_a_record() -> None:
    value = (
        b'{"did":"did:plc:a","time_us":1,"kind":"commit","seq":7,"commit":'
        b'{"rev":"3k","operation":"create","collection":"app.bsky.feed.post","rkey":"r","record":{"text":"'
        + b"x" * 99_999
        + b'"}}}'
    )
    letter = letter_for(RefusedRecord(b"did:plc:a", value, 0), RUN, "topic")
    assert (letter.relay, letter.run, letter.seq, letter.did) == ("r", 5, 7, "did:plc:a")
    assert letter.reason == (f"create app.bsky.feed.post/r: the record is too large for the topic: {len(value)} bytes")
    assert len(encode_control(letter)) < 30_000


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b'{"kind":"commit"}', b"[" * 100_000])
def test_the_letter_of_whatever_it_is(value: bytes) -> None:
    assert letter_for(RefusedRecord(b"did:plc:a", value, 0), RUN, "topic").did == "did:plc:a"


def test_a_letter_that_does_not_fit_loses_its_payload_and_then_the_topic_is_at_fault() -> None:
    letter = DeadLetter(relay="r", run=5, seq=1, did=None, reason="x", payload="AAAA")
    without = letter_for(RefusedRecord(None, encode_control(letter), 0), RUN, "topic")
    assert (without.payload, without.reason) == ("", "x")
    for message in (without, RUN):
        with pytest.raises(MismatchError, match=r"topic refuses a message of \d+ bytes .* max\.message\.bytes"):
            letter_for(RefusedRecord(None, encode_control(message), 0), RUN, "topic")


def test_a_broker_that_does_not_know_zstd_is_too_old() -> None:
    assert [understands({0: (0, most)}) for most in (5, 6, 7, 13)] == [False, False, True, True]
    assert not understands({})
