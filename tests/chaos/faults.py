"""What can go wrong, one function a kind: it breaks something for a while and mends it before it returns.

``target`` is what a fault needs to itself: two faults at once never have the same. While a fault ``blocks``, nothing
can move, and standing still is not ours.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.chaos.site import Kept, Site


@dataclass(frozen=True)
class Kind:
    """A kind of fault. ``weight``: how often it is chosen; ``do`` gets the site, a source of chance, and the target."""

    name: str
    do: Callable[[Site, Random, str], Awaitable[None]]
    targets: tuple[str, ...]
    blocks: bool = False
    weight: float = 1.0


#: Seconds after which Kafka drops a worker, or an ingest, that is silent.
SESSION: Final = 10.0
#: Seconds from a worker's start until it reads its first slice, about.
START: Final = 6.0
WORKERS: Final = ("worker1", "worker2", "worker3")
INGESTS: Final = ("ingest1", "ingest2")


async def _kill(site: Site, _: Random, target: str) -> None:
    site.kept[target].send(signal.SIGKILL)


async def _terminate(site: Site, _: Random, target: str) -> None:
    site.kept[target].send(signal.SIGTERM)


async def _frozen(kept: Kept, seconds: float) -> None:
    kept.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        kept.send(signal.SIGCONT)


async def _freeze_shortly(site: Site, chance: Random, target: str) -> None:
    await _frozen(site.kept[target], chance.uniform(0.5, 6))


async def _freeze_beyond_session(site: Site, chance: Random, target: str) -> None:
    await _frozen(site.kept[target], SESSION + chance.uniform(2, 10))


async def _leave_and_join(site: Site, chance: Random, target: str) -> None:
    kept = site.kept[target]
    await site.rest(kept, signal.SIGTERM)
    await asyncio.sleep(chance.uniform(1, 8))
    site.again(kept)


def _clock_steps(sign: int) -> Callable[[Site, Random, str], Awaitable[None]]:
    """From a minute to some hours, each as likely as the other. It stays so: what comes next finds a wrong clock."""

    async def do(site: Site, chance: Random, target: str) -> None:
        site.step_clock(target, sign * 60 * 300 ** chance.random())

    return do


async def _broker_killed(site: Site, chance: Random, _: str) -> None:
    await asyncio.to_thread(site.stack.kafka.kill)
    await asyncio.sleep(chance.uniform(0, 4))
    await asyncio.to_thread(site.stack.kafka.start)


def _at_a_start(
    breaks: Callable[[Site, Random, str], Awaitable[None]],
) -> Callable[[Site, Random, str], Awaitable[None]]:
    """The same while a worker starts: one is killed, also if it is frozen, and the one in its place finds it broken."""

    async def do(site: Site, chance: Random, target: str) -> None:
        site.kept[chance.choice(WORKERS)].send(signal.SIGKILL)
        await asyncio.sleep(chance.uniform(0, START))
        await breaks(site, chance, target)

    return do


async def _broker_frozen(site: Site, chance: Random, _: str) -> None:
    site.stack.kafka.freeze()
    await asyncio.sleep(chance.uniform(1, 15))
    site.stack.kafka.thaw()


async def _broker_slow(site: Site, chance: Random, _: str) -> None:
    """Nine tenths of the time it stands."""
    for _ in range(chance.randint(5, 15)):
        site.stack.kafka.freeze()
        await asyncio.sleep(0.36)
        site.stack.kafka.thaw()
        await asyncio.sleep(0.04)


async def _postgres_killed(site: Site, chance: Random, _: str) -> None:
    await asyncio.to_thread(site.stack.postgres.kill)
    await asyncio.sleep(chance.uniform(0, 4))
    await asyncio.to_thread(site.stack.postgres.start)


async def _postgres_stopped_at_once(site: Site, chance: Random, _: str) -> None:
    await asyncio.to_thread(site.stop_postgres_at_once)
    await asyncio.sleep(chance.uniform(0, 4))
    await asyncio.to_thread(site.stack.postgres.start)


async def _postgres_frozen(site: Site, chance: Random, _: str) -> None:
    site.stack.postgres.freeze()
    await asyncio.sleep(chance.uniform(1, 15))
    site.stack.postgres.thaw()


async def _sessions_ended(site: Site, _: Random, __: str) -> None:
    await site.deployment.look.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'atproto-streams%'"
    )


async def _connections_cut(site: Site, _: Random, target: str) -> None:
    site.proxies[target].cut()


async def _network_frozen(site: Site, chance: Random, target: str) -> None:
    """Connections stay and carry nothing: a cable that was pulled."""
    proxy = site.proxies[target]
    proxy.freeze()
    await asyncio.sleep(chance.uniform(1, 15))
    proxy.thaw()


async def _network_slow(site: Site, chance: Random, target: str) -> None:
    proxy = site.proxies[target]
    proxy.delay(chance.uniform(0.05, 0.4))
    proxy.rate(chance.choice((20_000, 100_000, 500_000)))
    await asyncio.sleep(chance.uniform(2, 10))
    proxy.delay(0)
    proxy.rate(0)


async def _relay_restarted(site: Site, chance: Random, _: str) -> None:
    await site.restart_relay(chance.uniform(0.2, 4))


def _relay_does(specification: str, seconds: float = 3.0) -> Callable[[Site, Random, str], Awaitable[None]]:
    """One of the development relay's own faults, on the connection that comes after a cut."""

    async def do(site: Site, chance: Random, _: str) -> None:
        armed = site.relay.faults.add(specification.replace("N", str(chance.randint(1, 400))))
        site.relay.disconnect_all()
        await asyncio.sleep(seconds)
        armed.times, armed.fired = 1, 1  # whether it came to it or not: it is over

    return do


_RELAY: Final = {
    "relay drops the connection": "drop:after=N",
    "relay resets the connection": "drop:after=N,hard=1",
    "relay closes": "close:after=N",
    "relay sends twice": "duplicate:after=N,count=300",
    "frames come in fragments": "fragments:after=N,count=300",
    "relay goes back": "rewind:after=N,count=500",
    "relay stalls": "stall:after=N,seconds=4,pongs=1",
    "relay is dead": "stall:after=N,seconds=8",
    "relay drips": "drip:after=N,rate=5",
    "relay sends garbage": "garbage:after=N",
    "relay sends text": "text:after=N",
    "relay sends a cut frame": "truncated:after=N",
    "relay sends an unknown frame": "unknown_op:after=N",
    "relay ends with an error": "error:after=N",
    "relay says ConsumerTooSlow": "error:after=N,name=ConsumerTooSlow",
    "relay refuses": "refuse:status=503,times=3",
    "relay limits connections": "limit:count=2,seconds=5",
    "relay begins late": "late:seconds=4,count=0",
    "live events overtake the replay": "overtake:after=N,count=20,by=60",
    "a live event overtakes": "overtake:after=N,count=1,by=30",
    "neighbours are exchanged": "swap:after=N",
    "a frame comes again": "repeat:after=N,count=30",
    "a seq is far ahead": "ahead:after=N",
    "a seq is far behind": "behind:after=N",
    "two events have one seq": "same_seq:after=N",
    "a PDS's clock is ahead": "clock_ahead:after=N,count=30",
    "a PDS's clock is behind": "clock_behind:after=N,count=30",
    "frames are not canonical": "loose_keys:after=N,count=30",
}

KINDS: Final = (
    Kind("worker SIGKILL", _kill, WORKERS, weight=4),
    Kind("worker SIGTERM", _terminate, WORKERS, weight=2),
    Kind("worker leaves and joins", _leave_and_join, WORKERS, weight=2),
    Kind("worker SIGSTOP", _freeze_shortly, WORKERS, weight=2),
    Kind("worker SIGSTOP beyond its session", _freeze_beyond_session, WORKERS, weight=2),
    Kind("ingest SIGKILL", _kill, INGESTS, blocks=True, weight=3),
    Kind("ingest SIGTERM", _terminate, INGESTS, blocks=True),
    Kind("ingest SIGSTOP", _freeze_shortly, INGESTS, blocks=True),
    Kind("ingest SIGSTOP beyond its session", _freeze_beyond_session, INGESTS, blocks=True),
    Kind("worker's clock forward", _clock_steps(1), WORKERS),
    Kind("worker's clock back", _clock_steps(-1), WORKERS),
    Kind("ingest's clock forward", _clock_steps(1), INGESTS),
    Kind("ingest's clock back", _clock_steps(-1), INGESTS),
    Kind("broker SIGKILL", _broker_killed, ("kafka",), blocks=True, weight=2),
    Kind("broker SIGSTOP", _broker_frozen, ("kafka",), blocks=True),
    Kind("broker slow", _broker_slow, ("kafka",), blocks=True),
    Kind("broker SIGKILL at a worker's start", _at_a_start(_broker_killed), ("kafka",), blocks=True, weight=2),
    Kind("broker SIGSTOP at a worker's start", _at_a_start(_broker_frozen), ("kafka",), blocks=True),
    Kind("Kafka's connections cut at a worker's start", _at_a_start(_connections_cut), ("kafka",), blocks=True),
    Kind("Postgres SIGKILL", _postgres_killed, ("postgres",), blocks=True, weight=2),
    Kind("Postgres immediate shutdown", _postgres_stopped_at_once, ("postgres",), blocks=True),
    Kind("Postgres SIGSTOP", _postgres_frozen, ("postgres",), blocks=True),
    Kind("Postgres ends our sessions", _sessions_ended, ("postgres",)),
    Kind("connections cut", _connections_cut, ("kafka", "postgres", "relay"), weight=3),
    Kind("network frozen", _network_frozen, ("kafka", "postgres", "relay"), blocks=True, weight=2),
    Kind("network slow", _network_slow, ("kafka", "postgres", "relay"), blocks=True, weight=2),
    Kind("relay restarted", _relay_restarted, ("relay",), blocks=True),
    *(Kind(name, _relay_does(what), ("relay",), blocks=True, weight=0.5) for name, what in _RELAY.items()),
)


@dataclass(frozen=True)
class Planned:
    """A fault of the schedule: what, to whom, how many seconds after the one before, and its own source of chance."""

    kind: Kind
    target: str
    after: float
    seed: str


def schedule(seed: int, count: int, mean_seconds: float) -> list[Planned]:
    """The faults of a seed, in order."""
    chance = Random(f"schedule {seed}")
    kinds = chance.choices(KINDS, [kind.weight for kind in KINDS], k=count)
    return [
        Planned(kind, chance.choice(kind.targets), chance.uniform(0, 2 * mean_seconds), f"{seed}/{number}")
        for number, kind in enumerate(kinds)
    ]
