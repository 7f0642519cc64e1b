"""The kind of a gap and of a dead letter: its writer says it, and code decides by it, not by the reason."""

from __future__ import annotations

import json

import pytest

from streams.messages import (
    CURSORS_REFUSED,
    NOT_KEPT,
    NOTHING_SHOWN,
    DeadLetter,
    LetterKind,
    dead_payload,
    encode_control,
)
from tests.integration.test_sink import DID, Stage, stage  # noqa: F401 (a fixture)
from tests.support import merge_model as model


@pytest.mark.parametrize(
    ("reason", "did", "told", "kind"),
    [
        ("not DAG-CBOR", None, None, "frame"),
        ("create a/b: no block", DID, None, "operation"),
        ("not an event of ours: x", None, None, "foreign"),
        ("not an event of ours: x", None, LetterKind.FRAME, "frame"),
        ("x", DID, LetterKind.OPERATION, "operation"),
        ("x", DID, LetterKind.MESSAGE, "foreign"),
    ],
)
async def test_a_letter_of_the_ingest_has_a_kind(
    stage: Stage,  # noqa: F811
    reason: str,
    did: str | None,
    told: LetterKind | None,
    kind: str,
) -> None:
    """An older ingest does not say it: what its reasons tell holds then. A message is nothing that an ingest buries."""
    payload = dead_payload(b"\xff")
    letter = DeadLetter(relay="r", run=1, seq=4, did=did, reason=reason, payload=payload, letter_kind=told)
    await stage.write(encode_control(letter))
    assert await stage.rows("dead_letters", "kind") == [(kind,)]


async def test_a_frame_is_believed_in_the_ingests_partition_only(stage: Stage) -> None:  # noqa: F811
    letter = DeadLetter(relay="r", run=1, seq=4, did=None, reason="x", payload="", letter_kind=LetterKind.FRAME)
    await stage.sink.positions({1}, {1: 0})
    await stage.sink.write(1, 0, 1, [model.Message(0, None, encode_control(letter))])
    assert await stage.rows("dead_letters", "partition, kind") == [(1, "foreign")]


async def test_a_message_is_told_by_its_key(stage: Stage) -> None:  # noqa: F811
    bad = model.commit(DID, "a", 1, 1) | {"time_us": -1}
    bytes_of = model.message(0, bad).value
    await stage.sink.positions({0}, {0: 0})
    await stage.sink.write(0, 0, 2, [model.Message(0, DID.encode(), bytes_of), model.Message(1, b"other", bytes_of)])
    assert await stage.rows("dead_letters", '"offset", kind') == [(0, "message"), (1, "foreign")]


@pytest.mark.parametrize(
    ("reason", "told", "kind"),
    [
        (NOT_KEPT, None, "not_kept"), (NOTHING_SHOWN, None, "not_known"), (CURSORS_REFUSED, None, "not_known"),
        ("the relay did not send these after a reconnect: its window moved past our position", None, "window_moved"),
        ("the relay's sequence was reset: x", None, "sequence_reset"),
        ("t/3 lost the offsets 1 to 2 while it was copied", None, "lost_in_copy"),
        ("behind what the last run has taken: x", None, "passed_over"),
        ("of a foreign producer", None, "other"), ("in other words", "not_kept", "not_kept"), ("x", "newer", "other"),
    ],
)  # fmt: skip
async def test_a_gap_has_a_kind(stage: Stage, reason: str, told: str | None, kind: str) -> None:  # noqa: F811
    """A message of an older ingest has none: what its reason tells holds then."""
    gap = {"kind": "gap", "version": 1, "relay": "r", "run": 1, "from_seq": 1, "to_seq": 2, "from_time": None}
    value = json.dumps({**gap, "to_time": None, "reason": reason, **({} if told is None else {"gap_kind": told})})
    await stage.write(value.encode())
    assert await stage.rows("gaps", "kind") == [(kind,)]
