"""Dead letters: who wrote one decides what it holds, and nothing hostile reaches a terminal."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import fields, replace

import pytest

from streams.maintenance.dead_letters import letter as letters
from streams.maintenance.dead_letters.letter import Letter
from streams.maintenance.dead_letters.text import LINES, description
from streams.messages import MAX_DEAD_PAYLOAD, LetterKind
from tests.support.dagcbor import encode
from tests.unit.protocol.test_events import DID, GOOD, commit_body, op

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
FRAME = encode({"op": 1, "t": "#commit"}) + encode(commit_body([op(GOOD)], [GOOD]))
#: As the sink, then as the ingest writes them.
MESSAGE = Letter(3, 7, 1, DID, None, None, NOW, "Postgres refuses the record: x", b"{}", NOW, LetterKind.MESSAGE)
OF_FRAME = Letter(0, 7, None, None, None, None, None, "not DAG-CBOR: x", FRAME, NOW, LetterKind.FRAME)


@pytest.mark.parametrize(
    ("letter", "obstacle"),
    [
        (MESSAGE, None),
        (replace(MESSAGE, payload=FRAME), None),
        (replace(MESSAGE, kind=LetterKind.FOREIGN), letters.NO_KEY),
        (replace(MESSAGE, payload=b"x" * MAX_DEAD_PAYLOAD), letters.CUT),
        (OF_FRAME, None),
        (replace(OF_FRAME, payload=b""), letters.EMPTY),
        # An account may make its record's block look like a frame, or a message, of somebody else's.
        (replace(OF_FRAME, kind=LetterKind.OPERATION), letters.OPERATION),
        (replace(OF_FRAME, kind=LetterKind.OPERATION, payload=b'{"did":"did:plc:victim"}'), letters.OPERATION),
    ],
)
def test_the_kind_decides_not_the_payload(letter: Letter, obstacle: str | None) -> None:
    assert letter.obstacle == obstacle


@pytest.mark.parametrize("kind", [None, "", "of a newer version"])
def test_a_row_of_a_kind_that_we_do_not_know_is_not_replayed(kind: str | None) -> None:
    row = {field.name: getattr(MESSAGE, field.name) for field in fields(MESSAGE)}
    assert letters.letter_of({**row, "kind": kind}).obstacle == letters.NO_KEY
    assert letters.letter_of({**row, "kind": "message"}) == MESSAGE


def test_a_frame_gives_its_messages_and_what_is_still_wrong() -> None:
    unpacked = letters.unpack(OF_FRAME, None)
    assert [json.loads(message.value or b"")["did"] for message in unpacked.messages] == [DID]
    assert (unpacked.messages[0].key, unpacked.messages[0].offset, unpacked.bad) == (DID.encode(), 7, [])
    assert letters.unpack(OF_FRAME, lambda _: False).messages == []
    mixed = encode({"op": 1, "t": "#commit"}) + encode(commit_body([op(GOOD), op(GOOD, path="bad")], [GOOD]))
    unpacked = letters.unpack(replace(OF_FRAME, payload=mixed), None)
    assert (len(unpacked.messages), len(unpacked.bad)) == (1, 1)
    for payload in (b"\xff", encode({"op": -1}) + encode({"error": "x"}), encode({"op": 1, "t": "#new"}) + encode({})):
        unpacked = letters.unpack(replace(OF_FRAME, payload=payload), None)
        assert (len(unpacked.messages), len(unpacked.bad)) == (0, 1)


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        (FRAME, '"repo": "did:plc:sxzzbolood4mc2wfytn6hcil"'),
        (b'{"text": "\\u001b[31m\xc2\x9b0m \\ud800 \xe6\x97\xa5\xe2\x80\xae"}', "日"),
        (b"\x1b]0;owned\x07 plain\r\nlines", "plain"),
        (b"\xff\xfe\x1b[2J", "ff fe 1b 5b 32 4a"),
        (b"[" * 100_000, "[[["),
        (b"\x00" * 9_000, "0000"),
        (json.dumps(list(range(5000))).encode(), "--raw FILE has all of it"),
        (b"", "bytes"),
    ],
)
def test_a_letter_is_readable_and_harmless(payload: bytes, part: str) -> None:
    hostile = replace(OF_FRAME, payload=payload, reason="\x1b[2J\x9b1m\u202eevil\n", did="did:\x1b]0;x\x07", rkey="\0")
    lines = list(description(hostile))
    assert part in "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    assert len(lines) < LINES + 15
    assert max(map(len, lines)) < 3100
