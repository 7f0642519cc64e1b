"""Random worlds by the whole way: the development relay, the real ingest, Kafka, the sink, Postgres; many at once.

Each world has a topic of its own and DIDs of its own; all share one schema, so that what a relay sent once is looked up
by its DID and key. A world whose sequence begins anew is read twice, before and after; none is read for ever.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import structlog

from streams.errors import StreamsError
from streams.local.stack import Stack
from streams.settings import Settings
from streams.simulator.manner import Beyond, Manner, Order
from streams.simulator.recording import Frame, iso_time
from streams.simulator.relay import DevRelay
from streams.simulator.repository import car, cid_of, commit_block, encode, encode_value, link
from streams.simulator.retained import FrameStore
from tests.arrivals.model import due
from tests.arrivals.world import SECOND, Event, World, make_world, tid
from tests.support.whole_way import Way

#: Worlds that are read side by side: most of their time is waiting.
AT_ONCE: Final = 24
#: Worlds of one process: what the libraries keep of the ones before goes with it.
PIECE: Final = 100
HOUR: Final = 3600 * SECOND
_COLLECTION: Final = "app.bsky.feed.post"
_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_BEYOND: Final = {"live": Beyond.LIVE, "FutureCursor": Beyond.ERROR, "silent": Beyond.SILENT}


@dataclass(frozen=True)
class Sent:
    """One event as this world's relay sends it."""

    did: str
    rkey: str
    frame: Frame


def sent(number: int, event: Event, *, anew: bool = False) -> Sent:
    """The frame of an event: a commit with one record, whose key names the event."""
    did = "did:plc:" + _letters(number, 8) + _letters(int(event.did[-24:]), 16)
    rkey = f"{event.rev}-{event.seq}"
    block = encode({"$type": _COLLECTION, "text": rkey, "createdAt": iso_time(event.made)})
    root = commit_block(did, event.rev, cid_of(block), bytes(64))
    op = {"action": "create", "path": f"{_COLLECTION}/{rkey}", "cid": link(cid_of(block))}
    body = {
        "seq": event.seq, "repo": did, "rev": event.rev, "since": None, "commit": link(cid_of(root)), "ops": [op],
        "blocks": car(cid_of(root), [(cid_of(root), root), (cid_of(block), block)]), "blobs": [], "rebase": False,
        "tooBig": False,
    }  # fmt: skip
    if event.time is not None:
        body["time"] = iso_time(event.time)
    data = encode_value({"op": 1, "t": "#commit"}) + encode_value(body)
    return Sent(did, rkey, Frame(event.seq, event.made, data, anew=anew))


def _letters(number: int, count: int) -> str:
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(count)))


def _relay(number: int, world: World, rnd: Random) -> DevRelay:
    frames = [sent(number, event, anew=place == world.began_anew).frame for place, event in enumerate(world.stream)]
    manner = Manner(
        order=Order.PLACE if world.serve == "by place" else Order.SEQ, beyond=_BEYOND[world.beyond],
        keep_old=world.keeps_old, cut_at_reset=True, sent_times=world.time_of_sending,
    )  # fmt: skip
    drops = [f"drop:after={rnd.randint(1, len(frames))}" for _ in range(rnd.choice((0, 0, 1, 3)))]
    published = world.began_anew if world.began_anew is not None else len(frames)
    return DevRelay(
        FrameStore(frames), published=published, cursor_inclusive=world.inclusive, manner=manner, faults=drops
    )


async def _read(relay: DevRelay, way: Way) -> None:
    """Take all that the relay has: what it has now; then what a new sequence brings, half of it live."""
    way = way.at(relay.url)
    await way.ingest()
    left = len(relay.store) - relay.head_index
    if left:
        relay.publish(left // 2)
        await way.follow_until_quiet(relay)
        await way.ingest()
    await way.apply()


async def through(settings: Settings, number: int, seed: int) -> list[str]:
    """One world: a sentence for each promise that is broken."""
    rnd = Random(f"{seed} {number}")
    world = make_world(rnd)
    names = {"kafka_topic": f"{settings.kafka_topic}.{seed}.{number}", "sink_group": f"{settings.sink_group}-{number}"}
    way = await Way.of(settings.model_copy(update=names))
    async with _relay(number, world, rnd) as relay:
        name = f"127.0.0.1:{relay.port}"
        try:
            await _read(relay, way)
        except TimeoutError:
            return ["the ingest never ends"]
        except StreamsError as error:
            return [f"the ingest ended with: {error}"]
    return [problem async for problem in _problems(way, number, world, name)]


async def _problems(way: Way, number: int, world: World, relay: str) -> AsyncIterator[str]:
    rows = await way.rows(f"SELECT did, rkey FROM records WHERE did LIKE 'did:plc:{_letters(number, 8)}%'")
    found = {(row["did"], row["rkey"]) for row in rows}
    # Where the relay gives no time, or its own, a rev of the future is refused: a dead letter with its reason.
    told = "SELECT did, rkey FROM dead_letters WHERE reason LIKE 'the rev % is more than an hour in the future'"
    buried = {(row["did"], row["rkey"]) for row in await way.rows(told)}
    now = time.time_ns() // 1000
    all_sent = {(one.did, one.rkey) for one in (sent(number, event) for event in world.stream)}
    first = world.stream[0].seq
    for place, event in due(world):
        one = sent(number, event)
        # What stands before the first frame that a relay gives is not asked for.
        asked_for = event.seq >= first or (world.began_anew is not None and place >= world.began_anew)
        is_refused = (one.did, one.rkey) in buried and event.rev > tid(now + HOUR)
        if (one.did, one.rkey) not in found and event[:3] not in world.astray and asked_for and not is_refused:
            yield f"seq {event.seq} is lost"
    for did, rkey in sorted(found - all_sent):
        yield f"{did}/{rkey} was never sent"
    gaps = [row["reason"] for row in await way.rows(f"SELECT reason FROM gaps WHERE relay = '{relay}'")]
    if world.began_anew is None:
        for reason in gaps:
            yield f"a gap that is none: {reason}"
    elif not any("reset" in reason for reason in gaps):
        yield f"no gap tells of the new sequence: {gaps}"


async def all_through(settings: Settings, numbers: range, seed: int) -> dict[str, list[str]]:
    """The worlds of these numbers, some at a time: what is broken, by world."""
    turns, broken = asyncio.Semaphore(AT_ONCE), {}

    async def one(number: int) -> None:
        async with turns:
            problems = await through(settings, number, seed)
        if problems:
            world = make_world(Random(f"{seed} {number}"))
            broken[f"--seed {seed} --only {number} ({', '.join(world.faults) or 'orderly'})"] = problems

    await asyncio.gather(*(one(number) for number in numbers))
    return broken


def in_own_stacks(count: int, seed: int) -> dict[str, list[str]]:
    """The first worlds of a seed, piece by piece, in a process and on a stack of its own: what is broken, by world."""
    broken: dict[str, list[str]] = {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        pieces = [range(first, min(first + PIECE, count)) for first in range(0, count, PIECE)]
        for piece, found in zip(pieces, pool.map(in_own_stack, pieces, [seed] * len(pieces)), strict=True):
            print(f"{piece.stop} of {count}: {len(found)} broken", *found, sep="\n  ", flush=True)
            broken |= found
    return broken


def in_own_stack(numbers: range, seed: int) -> dict[str, list[str]]:
    """The worlds of these numbers, on a Kafka and a Postgres that are made for them: what is broken, by world."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    folder = Path(tempfile.mkdtemp(prefix="arrivals-"))
    stack = Stack(folder, fsync=False)
    try:
        stack.up()
        settings = Settings(
            _env_file=None, kafka_bootstrap_servers=stack.bootstrap_servers, database_url=stack.dsn,  # type: ignore[call-arg]
            kafka_topic="arrivals", sink_schema="arrivals", sink_group="arrivals", kafka_partitions=1, local_dir=folder,
            ingest_idle_seconds=1.5, ingest_busy_mb_per_s=0, backfill_max_memory_mb=65_536,
        )  # fmt: skip
        return asyncio.run(all_through(settings, numbers, seed))
    finally:
        stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def kinds(numbers: range, seed: int) -> Counter[str]:
    """What these worlds are."""

    def each() -> Iterator[str]:
        for number in numbers:
            world = make_world(Random(f"{seed} {number}"))
            yield from world.faults or ["orderly"]
            if world.began_anew is not None:
                yield "began anew"

    return Counter(each())
