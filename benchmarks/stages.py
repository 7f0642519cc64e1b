"""The whole way, and each stage alone: measured from outside, by the processes of one version."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import asyncpg

from benchmarks import programs
from benchmarks.figures import Figures, Measured, figures_of
from benchmarks.programs import Program, Version
from benchmarks.sampling import Sampler, Usage
from benchmarks.servers import Servers, WalPosition, connected, wal_position
from benchmarks.verify import check_rows
from benchmarks.workload import ServedRelay
from streams.kafka.topic import ensure_topic
from streams.settings import Settings

if TYPE_CHECKING:
    from benchmarks.servers import Connection

#: Seconds that a stage may take, and besides for each event.
_LIMIT, _EACH = 120.0, 1 / 500
#: Seconds between two looks at the positions.
_LOOK_EVERY: Final = 0.05


@dataclass(frozen=True, slots=True)
class Site:
    """The place and the traffic of all measurements of one benchmark."""

    servers: Servers
    relay: ServedRelay
    events: int

    @property
    def limit(self) -> float:
        """Return the seconds that a stage may take."""
        return _LIMIT + _EACH * self.events


async def end_to_end(site: Site, version: Version) -> Figures:
    """Measure relay to rows."""
    return figures_of(await measure_whole(site, version))


async def measure_whole(site: Site, version: Version) -> Measured:
    """Measure relay to rows: from the ingest's plan, when it is about to connect, until the last event is applied."""
    settings = site.servers.settings(site.relay.url)
    info = await ensure_topic(settings)
    async with connected(site.servers.dsn) as look:
        async with programs.worker(version, settings) as worker:
            await _until_assigned(look, settings, worker, info.partitions)
            before = await wal_position(look)
            async with programs.ingest(version, settings) as ingest:
                began = await ingest.until("plan", site.limit)
                roots = {"relay": site.relay.pid, "ingest": ingest.pid, "worker": worker.pid, **site.servers.pids()}
                async with Sampler(roots, apart=frozenset((look.get_server_pid(),))) as sampler:
                    await _until_received(look, settings, site.events, (worker, ingest), site.limit)
                    seconds, usage = time.monotonic() - began, sampler.usage()
        measured = await _measured(site, settings, look, seconds=seconds, usage=usage, before=before)
    await check_rows(settings, site.relay.oracle, site.events)
    await site.servers.forget(settings)
    return replace(measured, began=began)


async def ingest_alone(site: Site, version: Version, **more: object) -> tuple[Figures, Settings]:
    """Measure an ingest into an empty topic, perhaps with ``more`` settings.

    Return also the settings that lead to the filled topic.
    """
    settings = site.servers.settings(site.relay.url, **more)
    await ensure_topic(settings)
    async with programs.ingest(version, settings) as ingest:
        began = await ingest.until("plan", site.limit)
        roots = {"relay": site.relay.pid, "ingest": ingest.pid, "kafka": site.servers.pids()["kafka"]}
        async with Sampler(roots) as sampler:
            seconds = await ingest.until("done", site.limit) - began
            usage = sampler.usage()
    kafka = site.servers.topic_bytes(settings.kafka_topic)
    measured = Measured(site.events, seconds, usage.cpu, rest=usage.rest, peak=usage.peak, kafka_bytes=kafka)
    return figures_of(measured), settings


async def worker_alone(site: Site, version: Version, settings: Settings) -> Figures:
    """Measure a worker from a filled topic into an empty schema, from its first rows until the topic's end."""
    async with connected(site.servers.dsn) as look:
        async with programs.worker(version, settings) as worker:
            first = await _until_received(look, settings, 1, (worker,), site.limit)
            began, before = time.monotonic(), await wal_position(look)
            roots = {"worker": worker.pid, **site.servers.pids()}
            async with Sampler(roots, apart=frozenset((look.get_server_pid(),))) as sampler:
                await _until_received(look, settings, site.events, (worker,), site.limit)
                seconds, usage = time.monotonic() - began, sampler.usage()
        measured = await _measured(site, settings, look, seconds=seconds, usage=usage, before=before, first=first)
    await check_rows(settings, site.relay.oracle, site.events)
    return figures_of(measured)


async def _measured(
    site: Site,
    settings: Settings,
    look: Connection,
    *,
    seconds: float,
    usage: Usage,
    before: WalPosition,
    first: int = 0,
) -> Measured:
    """Return what was measured of a run whose sessions have ended. ``first``: events that came before."""
    wal = (await wal_position(look)).since(before)
    rows = await look.fetchval(f"SELECT sum(applied) FROM {settings.sink_schema}.sink_offsets")
    events = site.events - first
    return Measured(
        events, seconds, usage.cpu, usage.postgres, usage.rest, usage.peak, int(rows) * events // site.events,
        wal.bytes, wal.images, site.servers.topic_bytes(settings.kafka_topic) * events // site.events,
    )  # fmt: skip


async def _until_assigned(look: Connection, settings: Settings, worker: Program, partitions: int) -> None:
    """Wait until the worker has a position in every partition."""
    end = time.monotonic() + _LIMIT
    while await _scalar(look, f"SELECT count(*) FROM {settings.sink_schema}.sink_offsets") < partitions:
        worker.check()
        if time.monotonic() > end:
            sys.exit("The worker did not start: see its log.")
        await asyncio.sleep(0.1)


async def _until_received(
    look: Connection, settings: Settings, events: int, running: tuple[Program, ...], limit: float
) -> int:
    """Wait until so many events are in the database. Return how many are."""
    statement = f"SELECT coalesce(sum(received), 0)::bigint FROM {settings.sink_schema}.sink_offsets"
    end = time.monotonic() + limit
    while (received := await _scalar(look, statement)) < events:
        for program in running:
            program.check()
        if time.monotonic() > end:
            sys.exit(f"Not done after {limit:.0f} s: {received:,} events of {events:,} are in Postgres.")
        await asyncio.sleep(_LOOK_EVERY)
    return received


async def _scalar(look: Connection, statement: str) -> int:
    """Return a number; 0 while its table is not there."""
    try:
        return int(await look.fetchval(statement))
    except asyncpg.UndefinedTableError:
        return 0
