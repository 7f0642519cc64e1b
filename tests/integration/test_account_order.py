"""Accounts on a real Postgres, from frames on: the relay's seq orders what is said of them, not the clocks of PDSes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.protocol.tid import tid_from_us
from streams.simulator.repository import cid_of
from streams.sink_postgres import PostgresSink, Written
from tests.fuzz.cbor import Link, dump
from tests.fuzz.frames import archive_of, encoded
from tests.fuzz.through import Ingest, Message
from tests.integration.test_upgrade import build, connect, migrate

#: An hour or so before the present, in seconds.
T = 1_790_000_000
DAY = 86_400
DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
OTHERS = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"


def iso(second: float) -> str:
    return (dt.datetime.fromtimestamp(T, dt.UTC) + dt.timedelta(seconds=second)).isoformat()


def rev(second: float) -> str:
    return tid_from_us(int((T + second) * 1_000_000), 5)


def post(seq: int, second: float, rkey: str, *, did: str = DID, claims: float | None = None) -> bytes:
    block = dump({"$type": "app.bsky.feed.post", "text": rkey})
    op = {"action": "create", "path": f"app.bsky.feed.post/{rkey}", "cid": Link(cid_of(block))}
    body = {
        "seq": seq, "repo": did, "rev": rev(second), "since": None, "ops": [op], "time": iso(claims or second),
        "blocks": archive_of([(cid_of(block), block)]),
    }  # fmt: skip
    return encoded("#commit", body)


def about(kind: str, seq: int, second: float | str, **body: Any) -> bytes:
    time = second if isinstance(second, str) else iso(second)
    return encoded(kind, {"seq": seq, "did": DID, "time": time, **body})


def account(seq: int, second: float | str, status: str | None = None) -> bytes:
    return about("#account", seq, second, active=status is None, **({"status": status} if status else {}))


def identity(seq: int, second: float | str, handle: str) -> bytes:
    return about("#identity", seq, second, handle=handle)


def sync(seq: int, second: float, to: float) -> bytes:
    return about("#sync", seq, second, rev=rev(to), blocks=b"")


@dataclass
class Lab:
    """Frames through the intake and the sink, in slices of ``cut`` messages."""

    sink: PostgresSink
    look: Any
    messages: list[Message] = field(default_factory=list)

    async def take(self, *frames: bytes, sequence: int = 7, cut: int = 2) -> Written:
        """As one run of the ingest, after eight of others' posts, which say how late it is."""
        ingest = Ingest(filtered=False, sequence=sequence)
        for number in range(8):
            ingest.intake.frame(post(1 + number, -60 + number, f"w{sequence}{number}", did=OTHERS))
        for data in frames:
            ingest.intake.frame(data)
        assert ingest.counts.dead == 0 and ingest.counts.seen == 0
        made = [Message(len(self.messages) + i, key, value) for i, (key, value) in enumerate(ingest.tape.messages)]
        self.messages += made
        return await self.write(made, cut)

    async def write(self, messages: list[Message], cut: int) -> Written:
        """Whatever was written before stands; returns the last transaction's totals."""
        base = (await self.sink.positions({0}, {0: 0}))[0]
        for begin in range(0, len(messages), cut):
            part = [Message(base + begin + i, m.key, m.value) for i, m in enumerate(messages[begin : begin + cut])]
            written = await self.sink.write(0, part[0].offset, part[-1].offset + 1, part)
        return written

    async def state(self) -> dict[str, Any]:
        """What is stored of the account."""
        row = await self.look.fetchrow(
            "SELECT handle, active, status, hidden, stale_rev FROM actors WHERE did = $1", DID
        )
        posts = await self.look.fetch("SELECT rkey FROM records WHERE did = $1 ORDER BY 1", DID)
        return {**dict(row), "posts": [row["rkey"] for row in posts]}


@pytest.fixture
async def lab(dsn: str) -> AsyncIterator[Lab]:
    database = Database(dsn, "firehose", 3)
    await migrate_schema(database)
    look = await asyncpg.connect(dsn, server_settings={"search_path": "firehose"})
    yield Lab(PostgresSink(database, topic="t", group="g"), look)
    await look.close()
    await database.close()


FIRST = post(100, -1, "first")
SCENES: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "active after a deactivation that claims a later time": (
        [FIRST, account(110, 5, "deactivated"), account(111, 0)], {"hidden": False, "posts": ["first"]}),
    "the later handle claims an earlier time": (
        [identity(112, 5, "old.test"), identity(113, 0, "new.test")], {"handle": "new.test"}),
    "three handles, each with an earlier time": (
        [identity(112, 5, "a.test"), identity(113, 0, "b.test"), identity(114, -3600, "c.test")], {"handle": "c.test"}),
    "a handle without a time that can be read": (
        [identity(112, 5, "old.test"), identity(113, "yesterday", "new.test")], {"handle": "new.test"}),
    "deleted a year ahead, active again, and a new post": (
        [FIRST, account(114, 365 * DAY, "deleted"), account(115, 10), post(116, 20, "again")],
        {"active": True, "hidden": False, "posts": ["again"]}),
    "deleted in the year 9998": (
        [FIRST, account(114, "9998-01-01T00:00:00Z", "deleted"), account(115, 10), post(116, 20, "again")],
        {"active": True, "posts": ["again"]}),
    "deleted two hours ahead": (
        [FIRST, account(114, 7200, "deleted"), account(115, 10), post(116, 20, "again")], {"posts": ["again"]}),
    "deleted five seconds ahead, and a post within them": (
        [FIRST, account(114, 5, "deleted"), account(115, 0), post(116, 1, "again")], {"posts": ["again"]}),
    "deleted by a clock that is behind": (
        [FIRST, account(114, -3 * DAY, "deleted"), account(115, 10), post(116, 20, "again")], {"posts": ["again"]}),
    "deleted, and an old post that comes late": (
        [FIRST, account(114, 5, "deleted"), post(115, -50, "late"), post(116, 7, "new")],
        {"status": "deleted", "hidden": True, "posts": ["new"]}),
    "deleted for good after an activation of next year": (
        [FIRST, account(114, 365 * DAY), account(115, 5, "deleted")], {"status": "deleted", "posts": []}),
    "taken down by a right clock after a wrong one": (
        [FIRST, account(117, 7200), account(118, 30, "takendown")], {"status": "takendown", "hidden": True}),
    "suspended by a clock that is days behind": (
        [FIRST, account(117, 0), account(118, -5 * DAY, "suspended")], {"status": "suspended", "hidden": True}),
    "stale by the later #sync, though an earlier one claims next year": (
        [FIRST, sync(119, 365 * DAY, 10), sync(120, 5, 40)], {"stale_rev": rev(40)}),
}  # fmt: skip


@pytest.mark.parametrize("scene", SCENES)
async def test_the_later_seq_is_the_later_state(lab: Lab, scene: str) -> None:
    frames, expected = SCENES[scene]
    for cut in (1, 3, 100):
        await lab.look.execute("TRUNCATE records, actors, dead_letters, sink_offsets")
        lab.messages.clear()
        written = await lab.take(*frames, cut=cut)
        assert written.total_received == written.total_applied + written.total_skipped
        state = await lab.state()
        assert {name: state[name] for name in expected} == expected, cut
        rows = await lab.look.fetch("SELECT * FROM actors ORDER BY did")
        await lab.write(lab.messages[3:], cut)  # a replay changes nothing
        assert await lab.state() == state
        assert await lab.look.fetch("SELECT * FROM actors ORDER BY did") == rows


@pytest.mark.parametrize("cut", [1, 100])
async def test_a_record_that_the_deletion_has_overtaken_goes_with_it(lab: Lab, cut: int) -> None:
    """On the wire it comes after the deletion, in the sequence before it: its rev is later than the stream was read."""
    messages = [("post", 113, 4), ("deletion", 114, 5), ("active", 115, 6), ("again", 116, 7)]
    made = {name: json.loads(_message(name, seq, second)) for name, seq, second in messages}
    for event in made.values():
        if event["kind"] != "commit":
            event["place"] = {"sequence": 7, "time": (T + 1) * 1_000_000}
    wire = [made[name] for name in ("deletion", "post", "active", "again")]
    events = [Message(i, DID.encode(), json.dumps(event).encode()) for i, event in enumerate(wire)]
    await lab.write(events, cut)
    assert (await lab.state())["posts"] == ["again"]
    await lab.write(events, 2)
    assert (await lab.state())["posts"] == ["again"]


def _message(name: str, seq: int, second: float) -> bytes:
    """The one message of a frame."""
    ingest = Ingest(filtered=False)
    frames = {"deletion": account(seq, second, "deleted"), "active": account(seq, second)}
    ingest.intake.frame(frames.get(name) or post(seq, second, name))
    [(_, value)] = ingest.tape.messages
    return value


async def test_between_two_sequences_the_believed_time_decides(lab: Lab) -> None:
    await lab.take(identity(500, 365 * DAY, "one.test"), account(501, 365 * DAY, "takendown"), sequence=7)
    # Another relay, which begins a day earlier with seqs of its own: what it says is older.
    earlier = [post(100 + i, -DAY + i, f"e{i}", did=OTHERS) for i in range(70)]
    await lab.take(*earlier, identity(900, -DAY + 80, "zero.test"), account(901, -DAY + 80), sequence=8)
    assert {name: (await lab.state())[name] for name in ("handle", "status")} == {
        "handle": "one.test", "status": "takendown",
    }  # fmt: skip
    # And goes on to what is newer, whatever it claims.
    later = [post(1000 + i, 100 + i, f"l{i}", did=OTHERS) for i in range(40)]
    await lab.take(*later, identity(1100, 3, "two.test"), account(1101, -9 * DAY), sequence=8)
    assert {name: (await lab.state())[name] for name in ("handle", "active")} == {"handle": "two.test", "active": True}
    # A reset: low seqs again.
    reset = [post(20 + i, 500 + i, f"r{i}", did=OTHERS) for i in range(40)]
    await lab.take(*reset, identity(61, 545, "three.test"), sequence=9)
    assert (await lab.state())["handle"] == "three.test"


async def test_claims_far_from_the_stream_are_counted(lab: Lab) -> None:
    await lab.take(
        account(110, 5), identity(111, 7200, "a.test"), account(112, -2 * DAY), sync(113, 365 * DAY, 3),
        identity(114, 3000, "b.test"), account(115, -3000),
    )  # fmt: skip
    assert await lab.look.fetchval("SELECT odd_claims FROM sink_offsets") == 3


async def test_what_an_older_version_wrote_for_a_wrong_clock_ends_now(dsn: str) -> None:
    """Rows of the old rule stay as they are; a claim of next year does not hold until then."""
    await build(dsn, "old", 6)
    connection = await connect(dsn, "old")
    far = tid_from_us((T + 365 * DAY * 40) * 1_000_000)
    await connection.execute(
        """INSERT INTO actors (did, active, status, account_time, account_seq, purged_rev, purged_at) VALUES
           ($1, false, 'deleted', now() + interval '1 year', 9, $2, now() + interval '1 year'),
           ($3, false, 'deleted', '2026-01-01', 9, '3kaaaaaaaaaaa', '2026-01-01')""",
        DID, far, OTHERS,
    )  # fmt: skip
    kept = await connection.fetchrow("SELECT * FROM actors WHERE did = $1", OTHERS)
    await migrate(dsn, "old")
    assert (
        dict(await connection.fetchrow("SELECT * FROM actors WHERE did = $1", OTHERS) or {}).items()
        >= dict(kept or {}).items()
    )
    mended = await connection.fetchrow(
        "SELECT account_time <= now() AND purged_at <= now() AS now, purged_rev FROM actors WHERE did = $1", DID
    )
    now_us = await connection.fetchval("SELECT (extract(epoch FROM now()) * 1000000)::bigint")
    assert mended is not None and mended["now"]
    assert tid_from_us(now_us - 3_600_000_000) < mended["purged_rev"] <= tid_from_us(now_us, 1023)
    await connection.close()
