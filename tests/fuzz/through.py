"""The way of a frame and of messages as the product has it, without Kafka and Postgres.

``Intake.frame`` is what the relay's connection calls with each frame. It does no I/O: its only way out is the
publisher, whose place a list takes here. ``BatchBuilder.build`` is what the sink calls with each slice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final, cast

from streams.errors import MismatchError
from streams.kafka.publisher import Publisher
from streams.kafka.topic import MAX_MESSAGE_BYTES
from streams.messages import ControlMessage, encode_control
from streams.postgres.batch import Batch, BatchBuilder
from streams.postgres.columns import join
from streams.protocol.collection_filter import compile_patterns
from streams.protocol.frames import ErrorFrame
from streams.sources.firehose.foreign import Doubt
from streams.sources.firehose.intake import FrameCounts, Intake, SequenceReset
from streams.sources.firehose.sequence.continuity import Continuity
from tests.fuzz import seeds

#: The worker's present (µs).
NOW: Final = seeds.END_US + 60_000_000
#: What the ingest and the sink keep in the cases that filter.
KEEP: Final = compile_patterns(("app.bsky.*", "com.example.thing"))
#: Room that a Kafka record needs beside its value: headers, and the longest DID as its key.
RECORD_ROOM: Final = 4096


class WrongError(AssertionError):
    """Something that must hold does not."""


def must(holds: object, text: str) -> None:
    if not holds:
        raise WrongError(text)


class Watch:
    """CPU seconds of the product's longest call since ``reset``: the fuzzer's own are not in them."""

    longest = 0.0

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        Watch.longest = max(Watch.longest, time.thread_time() - self._began)

    @staticmethod
    def reset() -> None:
        Watch.longest = 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """A Kafka record, as far as the sink looks at it."""

    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Tape:
    """The publisher's place: what it was given, as the messages that Kafka would get."""

    messages: list[tuple[bytes | None, bytes]] = field(default_factory=list)
    #: The DIDs of which it was given something.
    known: set[str] = field(default_factory=set)

    def add(self, did: str, values: list[bytes]) -> None:
        self.known.add(did)
        self.messages += [(did.encode(), value) for value in values]

    def control(self, message: ControlMessage, partition: int = 0) -> None:
        must(partition == 0, "a control message of a frame belongs into partition 0")
        self.messages.append((None, encode_control(message)))


def proven() -> Doubt:
    """Of a stream that has shown to be a firehose: what comes now is a bad frame, not another kind of stream."""
    doubt = Doubt("relay.example.com")
    doubt.prove()
    return doubt


class Ingest:
    """One connection's intake, on a tape: of a stream that is known as a firehose, where no ``doubt`` is given."""

    def __init__(self, *, filtered: bool, doubt: Doubt | None = None, sequence: int = NOW) -> None:
        self.tape = Tape()
        self.counts = FrameCounts()
        self.heads = 0
        #: What names the events of all frames that came.
        self.came: set[tuple[int | None, str, str]] = set()
        self.intake = Intake(
            cast(Publisher, self.tape), Continuity(0, known=False), self.counts,
            relay="wss://relay.example.com", run=NOW, sequence=sequence, keep=KEEP if filtered else None, head_seq=None,
            on_head=self._head, on_turn=lambda: NOW, on_tolerated=lambda: None, doubt=doubt or proven(),
        )  # fmt: skip

    def _head(self) -> None:
        self.heads += 1

    def take(self, data: bytes) -> str | None:
        """Give it one frame; the name of what it raised of its documented errors. Any other goes through."""
        try:
            with Watch():
                self.intake.frame(data)
        except ErrorFrame as error:
            must(len(str(error)) < 5000, "an error frame's text is not bounded")
            must(error.name.isprintable() and str(error).isprintable(), "an error frame's text is not printable")
            return "error frame"
        except SequenceReset:
            return "reset"
        return None


def sizes(messages: list[tuple[bytes | None, bytes]]) -> None:
    """Every message must fit into the topic: one that does not stops the ingest for ever."""
    for key, value in messages:
        size = len(value) + len(key or b"")
        must(size + RECORD_ROOM <= MAX_MESSAGE_BYTES, f"a message of {size} bytes: Kafka refuses it")


class Worker:
    """The sink's decoder, for any number of slices; its memory of collections lasts."""

    def __init__(self) -> None:
        self._builders = {False: BatchBuilder(), True: BatchBuilder(KEEP)}

    def build(self, messages: list[Message], *, filtered: bool) -> Batch | None:
        """The batch of a slice with all that is sent to Postgres made of it; None where the topic is not ours."""
        try:
            with Watch():
                batch = self._builders[filtered].build(messages, NOW)
                join(batch.grouped())
                extras = batch.extras()
        except MismatchError as error:
            must(len(str(error)) < 500, "the sentence for the operator is not bounded")
            return None
        must(extras is None or "\\u0000" not in extras.replace("\\\\", ""), "a NUL on its way to jsonb")
        for text in (letter["reason"] for letter in batch.dead):
            must(
                text and text.isprintable() and len(text) < 1000,
                f"a dead letter's reason is not fit for people: {text[:200]!r}",
            )
        return batch


def fates(batch: Batch) -> dict[str, int]:
    """What became of the one message of a batch, by outcome."""
    stages = batch.stages
    return {
        "row": sum(len(stage.rows) for stage in stages),
        "dead": len(batch.dead),
        "filtered": batch.filtered,
        "account": len(batch.handles) + sum(len(stage.events) + len(stage.accounts) for stage in stages),
        "control": len(batch.gaps) + len(batch.runs) + (batch.watermark is not None),
    }


def rows_of(batch: Batch) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The rows of all stages by stage and key, without their offsets."""
    return {(n, *key): row[:8] for n, stage in enumerate(batch.stages) for key, row in stage.rows.items()}
