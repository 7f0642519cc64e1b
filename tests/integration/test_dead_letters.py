"""Dead letters: replayed they end where they belong, counted once; beside live workers; listed, shown and purged."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streams.maintenance.dead_letters import letter as letters
from streams.maintenance.dead_letters import replay
from streams.maintenance.dead_letters.replay import Replayed, Replayer
from streams.maintenance.dead_letters.store import LetterFilter
from streams.messages import DeadLetter, Gap, GapKind, dead_payload, encode_control
from streams.postgres.database import Database
from streams.sink_postgres import PostgresSink
from tests.acceptance.commands import FAUST, Finished, finish
from tests.acceptance.deployment import STEADY, Deployment
from tests.conftest import SettingsFactory, migrated
from tests.integration.test_sink import Stage, stage  # noqa: F401 (a fixture)
from tests.support import merge_model as model
from tests.support.dagcbor import encode
from tests.unit.protocol.test_events import GOOD, commit_body, op

DID, OTHER = model.DIDS[:2]
#: Rows with these rkeys are refused, by a constraint as an operator may have added one.
POISON = "ALTER TABLE {} ADD CONSTRAINT poison CHECK (rkey !~ '^bad')"
CURE = "ALTER TABLE {} DROP CONSTRAINT poison"
ALL = LetterFilter("t")


@pytest.fixture
async def poisoned(stage: Stage) -> Stage:  # noqa: F811 (a fixture)
    await stage.look.execute(POISON.format("records"))
    return stage


def replayer(stage: Stage) -> Replayer:  # noqa: F811
    return Replayer(stage.database, "g")


async def counts(stage: Stage, partition: int = 0) -> tuple[int, int, int, int]:  # noqa: F811
    row = await stage.look.fetchrow(
        "SELECT received, applied, skipped, dead FROM sink_offsets WHERE partition = $1", partition
    )
    return tuple(row)  # type: ignore[return-value]


def frame(kind: str, body: dict[str, Any]) -> bytes:
    return encode({"op": 1, "t": kind}) + encode(body)


def letter(payload: bytes, reason: str = "a decoder's fault", did: str | None = None, seq: int | None = 9) -> bytes:
    """As the ingest writes one."""
    return encode_control(DeadLetter(relay="r", run=1, seq=seq, did=did, reason=reason, payload=dead_payload(payload)))


async def test_after_a_fix_each_letter_ends_where_it_belongs(poisoned: Stage) -> None:
    """The newer row stays, the tombstone and the deletion too; what is missing comes; what is still refused stays."""
    bad = [model.commit(DID, f"bad-{name}", 5, 1) for name in ("missing", "older", "newer", "deleted", "still")]
    gone = model.commit(OTHER, "bad-gone", 5, 1)
    await poisoned.write(*bad, gone, model.commit(DID, "good", 5, 1))
    assert await counts(poisoned) == (7, 1, 0, 6)
    before = await poisoned.rows("dead_letters", '"offset", created_at')
    # The account's deletion takes the letter along; this one comes from a dump that was restored since.
    restore = await poisoned.look.fetch("SELECT * FROM dead_letters WHERE rkey = 'bad-gone'")
    await poisoned.look.execute(CURE.format("records"))
    await poisoned.write(
        model.commit(DID, "bad-older", 4, 2), model.commit(DID, "bad-newer", 6, 3),
        model.commit(DID, "bad-deleted", 7, None), model.account(OTHER, 8, 2000, "deleted"),
    )  # fmt: skip
    await poisoned.look.executemany(
        f"INSERT INTO dead_letters VALUES ({', '.join(f'${n}' for n in range(1, 13))})", [tuple(r) for r in restore]
    )
    await poisoned.look.execute("ALTER TABLE records ADD CONSTRAINT worse CHECK (rkey !~ '^bad-still')")
    done = await replayer(poisoned).replay(ALL)
    assert done == Replayed(applied=2, skipped=3, dead=1)
    assert await poisoned.keys() == {
        "good": "bafy1", "bad-missing": "bafy1", "bad-older": "bafy1", "bad-newer": "bafy3", "bad-deleted": None,
    }  # fmt: skip
    assert await counts(poisoned) == (11, 7, 3, 1)
    [(offset, reason, created)] = await poisoned.rows("dead_letters", '"offset", reason, created_at')
    assert (offset, created) == (4, dict(before)[4])
    assert '"worse"' in reason
    assert (await poisoned.sink.positions({0}, {}))[0] == 11
    # Once more, nothing changes; a live worker goes on from its own position.
    assert await replayer(poisoned).replay(ALL) == Replayed(dead=1)
    assert (await poisoned.write(model.commit(DID, "next", 9, 1))).total_applied == 8
    assert await counts(poisoned) == (12, 8, 3, 1)


async def test_the_events_that_are_no_records(stage: Stage) -> None:  # noqa: F811
    """An account's state, its deletion and a handle, refused by an older program: by their own times, as ever."""
    await stage.sink.positions({0}, {0: 0})
    await stage.write(model.commit(DID, "old", 1, 1), model.commit(OTHER, "x", 1, 1), model.identity(DID, 9, 9, "new"))
    events = (
        model.account(DID, 5, 5, "takendown"), model.identity(DID, 5, 5, "old"), model.account(OTHER, 6, 6, "deleted"),
        model.sync(DID, 7, 7, 2),
    )  # fmt: skip
    await stage.look.executemany(
        'INSERT INTO dead_letters (topic, partition, "offset", did, time, reason, payload, kind) '
        "VALUES ('t', 0, $1, $2, now(), 'x', $3, 'message')",
        [(100 + n, event["did"], json.dumps(event).encode()) for n, event in enumerate(events)],
    )
    await stage.look.execute("UPDATE sink_offsets SET dead = dead + 4, received = received + 4")
    assert await replayer(stage).replay(ALL) == Replayed(applied=3, skipped=1)
    assert await counts(stage) == (7, 6, 1, 0)
    assert await stage.keys() == {"old": "bafy1"}
    rows = await stage.rows("actors", "did, handle, status, stale_rev")
    assert rows == [(DID, "new", "takendown", model.rev(2)), (OTHER, None, "deleted", None)]


async def test_letters_of_the_ingest(stage: Stage) -> None:  # noqa: F811
    """Whole frames are decoded again; what is still wrong with one keeps it, whole, and counts as one letter."""
    other = encode({"$type": "app.bsky.feed.post", "text": "other"})
    two = commit_body([op(GOOD), op(other, path="app.bsky.feed.post/b")], [GOOD, other], time="2026-01-31T12:00:00Z")
    half = commit_body([op(GOOD, path="app.bsky.feed.post/c"), op(GOOD, path="no-slash"), op(GOOD, "also-bad")], [GOOD])
    frames = [
        frame("#commit", two), frame("#commit", two | {"seq": 8}), frame("#commit", half | {"seq": 10}), b"\xff",
        frame("#identity", {"seq": 11, "did": DID, "handle": "alice.test", "time": "2026-01-31T12:00:00Z"}),
        frame("#info", {"name": "x"}), b"x" * 300_000,
    ]  # fmt: skip
    # Of an operation the account's own bytes were kept: made to look like a frame, they must not become one.
    forged = letter(frames[0], "create a/b: the record cannot be decoded", did=DID, seq=77)
    await stage.write(*[letter(bytes_, seq=n) for n, bytes_ in enumerate(frames)], forged)
    await stage.write(model.commit(DID, "elsewhere", 1, 1), partition=3)
    done = await replayer(stage).replay(ALL)
    assert done == Replayed(2, 2, 2, Counter({letters.CUT: 1, letters.OPERATION: 1}))
    assert await stage.rows("records", "rkey, seq", "1") == [("a", 9), ("b", 9), ("c", 10), ("elsewhere", 1001)]
    assert await stage.rows("actors", "did, handle") == [(DID, "alice.test")]
    assert await counts(stage) == (8, 2, 2, 4)
    kept = await stage.rows("dead_letters", '"offset", seq, did, time, reason, payload')
    assert [row[:4] for row in kept] == [(2, 2, None, None), (3, 3, None, None), (6, 6, None, None), (7, 77, DID, None)]
    assert "(and 1 more)" in kept[0][4]
    assert "not DAG-CBOR" in kept[1][4]
    assert [row[5] for row in kept[:2]] == [frames[2], b"\xff"]
    # Postgres refuses one of a frame's rows: the frame stays, whole, and can be replayed again.
    await stage.look.execute("DELETE FROM dead_letters; DELETE FROM records")
    await stage.write(letter(frame("#commit", two | {"rev": "none"}), seq=19))
    assert await replayer(stage).replay(ALL) == Replayed(dead=1)
    [(did, reason)] = await stage.rows("dead_letters", "did, reason")
    assert (did, reason) == (None, "the rev 'none' is not a valid TID (and 1 more)")
    await stage.look.execute("DELETE FROM dead_letters")
    await stage.look.execute("ALTER TABLE records ADD CONSTRAINT poison CHECK (rkey <> 'b')")
    await stage.write(letter(frames[0], seq=20))
    assert await replayer(stage).replay(ALL) == Replayed(dead=1)
    [(did, seq, time, reason, payload)] = await stage.rows("dead_letters", "did, seq, time, reason, payload")
    assert (did, seq, time, payload) == (None, 20, None, frames[0])
    assert "Postgres refuses" in reason
    await stage.look.execute(CURE.format("records"))
    assert await replayer(stage).replay(ALL) == Replayed(applied=1)
    assert await stage.rows("records", "rkey", "1") == [("a",), ("b",)]
    assert await counts(stage) == (10, 3, 2, 5)


class Dying(Database):
    """Its sessions are cut after so many chunks, at the end of a transaction: before the commit, or after it."""

    def arm(self, chunks: int, *, committed: bool) -> None:
        self.left, self.committed = chunks, committed

    async def run(self, function: Any, **options: Any) -> Any:
        async def call(connection: Any) -> Any:
            if self.left == 0 and not self.committed:
                async with connection.transaction():
                    await function(connection)
                    raise RuntimeError("killed")
            result = await function(connection)
            if self.left == 0:
                raise RuntimeError("killed")
            self.left -= 1
            return result

        return await super().run(call, **options)


async def test_killed_in_the_middle_and_beside_a_worker(poisoned: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before or after a commit it goes on; a worker that writes all the while never finds a fence."""
    monkeypatch.setattr(replay, "CHUNK", 7)
    for partition in (0, 1):
        await poisoned.write(*[model.commit(DID, f"bad-{partition}-{n}", 1, 1) for n in range(60)], partition=partition)
    await poisoned.look.execute(CURE.format("records"))
    dying = Dying(poisoned.dsn, "firehose", 2)
    for committed in (False, True):
        dying.arm(3, committed=committed)  # the list of partitions is the first
        with pytest.raises(RuntimeError):
            await Replayer(dying, "g").replay(ALL)
    await dying.close()
    # Two chunks each time, and the one whose commit was not told.
    assert len(await poisoned.rows("dead_letters", "1")) == 120 - 2 * 7 - 3 * 7

    stop = asyncio.Event()

    async def worker(partition: int) -> int:
        written = 0
        while not stop.is_set():
            # Raises Fenced if it is thrown out.
            events = [model.commit(OTHER, f"live-{partition}-{written}-{n}", 1, 1) for n in range(20)]
            assert (await poisoned.write(*events, partition=partition)).applied == 20
            written += 20
        return written

    workers = [asyncio.create_task(worker(partition)) for partition in (0, 1)]
    await asyncio.sleep(0.1)
    seen: list[int] = []
    done = await replayer(poisoned).replay(ALL, lambda sums: seen.append(sums.replayed))
    await asyncio.sleep(0.1)
    stop.set()
    live = [await task for task in workers]
    assert done == Replayed(applied=85)
    assert seen[0] == 7
    assert min(live) > 0
    for partition in (0, 1):
        assert await counts(poisoned, partition) == (60 + live[partition], 60 + live[partition], 0, 0)
    assert len(await poisoned.keys()) == 120 + sum(live)


async def test_deletions_beside_a_replay_leave_nothing_behind(poisoned: Stage) -> None:
    """An account is deleted by another partition's worker while a frame of it is replayed: one order or the other."""
    two = commit_body([op(GOOD)], [GOOD], time="2026-01-31T12:00:00Z")
    await poisoned.write(letter(frame("#commit", two)))
    await poisoned.write(model.identity(OTHER, 1, 1, "x"), partition=5)
    deletion = model.account(two["repo"], 5, 5, "deleted") | {"time_us": 1_800_000_000_000_000}
    held = asyncio.create_task(poisoned.write(model.identity(OTHER, 2, 2, "y"), partition=0))
    await held
    async with poisoned.look.transaction():
        # A worker in the middle of a batch of partition 5.
        await poisoned.look.execute("SELECT FROM sink_offsets WHERE partition = 5 FOR UPDATE")
        running = asyncio.create_task(replayer(poisoned).replay(ALL))
        await asyncio.sleep(0.3)
        assert not running.done(), "it did not wait for the account's partition"
    assert await running == Replayed(applied=1)
    await poisoned.write(deletion, partition=5)
    assert await poisoned.rows("records", "rkey") == []


async def test_a_group_that_read_nothing_is_told(poisoned: Stage) -> None:
    await poisoned.write(model.commit(DID, "bad", 1, 1))
    with pytest.raises(replay.SettingsError, match="SINK_GROUP"):
        await Replayer(poisoned.database, "another").replay(ALL)
    # A second group of the same schema found the letter there, and skipped it: its counts add up too.
    second = PostgresSink(poisoned.database, topic="t", group="second")
    await second.positions({0}, {0: 0})
    await second.write(0, 0, 1, [model.message(0, model.commit(DID, "bad", 1, 1))])
    await poisoned.look.execute(CURE.format("records"))
    assert await Replayer(poisoned.database, "second").replay(ALL) == Replayed(applied=1)
    rows = await poisoned.rows("sink_offsets", "consumer_group, received, applied, skipped, dead")
    assert rows == [("g", 1, 0, 0, 1), ("second", 1, 1, 0, 0)]


# -- the commands

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"


@pytest.fixture
async def filled(settings: SettingsFactory) -> AsyncIterator[Any]:
    """A schema with letters and gaps of two partitions, hostile as can be."""
    made = settings()
    await migrated(made.database_dsn(), made.sink_schema)
    database = Database(made.database_dsn(), made.sink_schema, 2)
    look = await asyncpg.connect(made.database_dsn(), server_settings={"search_path": made.sink_schema})
    sink = PostgresSink(database, topic=made.kafka_topic, group=made.sink_group)
    await sink.positions({0, 1}, {0: 0, 1: 0})
    bad = [model.commit(DID, f"r{n}", 1, 1) for n in range(60)]
    for event in bad:
        event["commit"]["rev"] = HOSTILE
    await sink.write(0, 0, 60, [model.message(n, event) for n, event in enumerate(bad)])
    gap = {"relay": f"wss://{HOSTILE}", "run": 1, "from_time": None, "to_time": 5}
    moved = Gap(from_seq=None, to_seq=None, reason="away", gap_kind=GapKind.WINDOW_MOVED, **gap)
    gaps = [encode_control(Gap(from_seq=10, to_seq=14, reason=f"gone {HOSTILE}", **gap)), encode_control(moved)]
    others = [model.Message(n, None, value) for n, value in enumerate([letter(b"\xff", f"say {HOSTILE}"), *gaps])]
    await sink.write(1, 0, 3, others)
    await sink.jump(0, 60, 100)
    await look.execute("UPDATE dead_letters SET rkey = $1, collection = 'a.b.c' WHERE partition = 0", HOSTILE)
    await look.execute('UPDATE dead_letters SET reason = $1 WHERE partition = 0 AND "offset" = 58', HOSTILE)
    await look.execute("UPDATE dead_letters SET created_at = '2026-01-31T12:00:00Z' WHERE \"offset\" < 10")
    yield look
    await look.close()
    await database.close()


async def test_the_commands(filled: Any, settings_environment: dict[str, str], tmp_path: Path) -> None:
    async def run(*arguments: str) -> Finished:
        done = await finish([*FAUST, *arguments], settings_environment, tmp_path)
        harmless = all(line.isprintable() for line in done.output.splitlines())
        assert harmless, repr(done.output)
        assert "Traceback" not in done.errors
        return done

    async def each(*commands: str) -> list[Finished]:
        found = []  # three at a time: they cost a second of starting each
        for at in range(0, len(commands), 3):
            found += await asyncio.gather(*(run(*command.split()) for command in commands[at : at + 3]))
        return found

    plain, as_json, summary, one, missing, gaps, json_gaps, of_topic, unsaid, kept, unclear = await each(
        "dead-letters list",
        f"dead-letters list --json --partition 0 --did {DID} --collection a.b.c --before 2026-01-31T12:00:01 --limit 7",
        "dead-letters list --summary --since 2026-02-01",
        f"dead-letters show 0 3 --raw {tmp_path}/raw",
        "dead-letters show 0 999",
        "gaps list",
        "gaps list --json --since 2026-02-01",
        "gaps list --kind topic --limit 1",
        "dead-letters purge",
        "dead-letters purge --before 2026-02-01",
        "dead-letters purge --all --did x",
    )
    assert plain.code == 0, plain.errors
    assert "50 of 61; --limit shows more." in plain.output
    assert re.search(r"0/59 +message +did:plc:a+/a.b.c/\S+: the rev '\S+' is not a valid TID", plain.output)
    assert re.search(r"59 × the rev", plain.output)
    rows = [json.loads(line) for line in as_json.output.splitlines()]
    assert [row["offset"] for row in rows] == [9, 8, 7, 6, 5, 4, 3]
    assert {row["kind"] for row in rows} == {"message"}
    assert rows[0] | {"created_at": "2026-01-31T12:00:00Z", "did": DID, "rkey": HOSTILE} == rows[0]
    assert summary.output.startswith("50 in all.")
    assert (one.code, missing.code) == (0, 2), one.errors
    assert json.loads((tmp_path / "raw").read_bytes())["commit"]["rkey"] == "r3"
    assert '"rkey": "r3"' in one.output
    assert "can be tried" in one.output
    assert "There is no dead letter" in missing.errors
    assert "3 in all." in gaps.output
    assert [line.split()[4] for line in gaps.output.splitlines()[:3]] == ["expired", "window_moved", "other"]
    assert "relay: 2, 5 seqs at most and 1 of unknown length" in gaps.output
    assert "topic: 1, 40 offsets" in gaps.output
    assert [json.loads(line)["kind"] for line in json_gaps.output.splitlines()] == ["topic", "relay", "relay"]
    assert "offsets 60 to 99" in of_topic.output
    assert "relay" not in of_topic.output
    assert (unsaid.code, unclear.code, kept.code) == (2, 2, 1)
    assert "Nothing was deleted" in kept.output
    assert await filled.fetchval("SELECT count(*) FROM dead_letters") == 61

    tried, purged = [await run(*command.split()) for command in (
        "dead-letters replay --json --reason DECODE", "dead-letters purge --before 2026-02-01 --yes"
    )]  # fmt: skip
    assert json.loads(tried.output)["replayed"] == 0
    assert purged.output == "11 dead letters deleted.\n", purged.errors
    assert await filled.fetchval("SELECT count(*) FROM dead_letters WHERE created_at < '2026-02-01'") == 0
    again, rest = await run("dead-letters", "replay"), await run("dead-letters", "purge", "--all", "--yes")
    assert "50 replayed: 0 applied, 0 skipped (superseded, filtered or erased), 50 dead again, 0 not" in again.output
    assert (rest.code, await filled.fetchval("SELECT count(*) FROM dead_letters")) == (0, 0)


async def test_a_worker_meanwhile(settings_environment: dict[str, str], tmp_path: Path) -> None:
    """Poison in a live deployment; mended and replayed while the worker reads on: exactly the oracle's state."""
    schema = settings_environment["SINK_SCHEMA"]
    await migrated(settings_environment["DATABASE_URL"], schema)
    async with Deployment.opened(settings_environment, tmp_path) as deployment:
        refuse = "ADD CONSTRAINT poison CHECK (hashtext(rkey) % 5 <> 0)"
        await deployment.look.execute(f"ALTER TABLE {schema}.records {refuse}")
        relay, oracle = await deployment.generated(4000)
        worker = deployment.worker(**STEADY)
        ingest = deployment.ingest(relay.url)
        await deployment.until_received(1500)
        assert (await deployment.counts())["dead"] > 50
        await deployment.look.execute(f"ALTER TABLE {schema}.records DROP CONSTRAINT poison")
        assert await deployment.received() < 4000, "the worker had nothing left to do"
        first = await finish([*FAUST, "dead-letters", "replay", "--json"], settings_environment, tmp_path)
        assert first.code == 0, first.errors
        await deployment.until_done(ingest)
        assert worker.running
        assert "is read again" not in worker.output
        await finish([*FAUST, "dead-letters", "replay"], settings_environment, tmp_path)
        assert json.loads(first.output)["applied"] > 0
        # Letters of accounts that were deleted since went with them; they count as dead.
        assert await deployment.table("dead_letters") == []
        await deployment.check(oracle, oracle["last_seq"] or 0)
        await worker.stop()
