"""Lanes over the real sink: in order, acknowledged after the commit and never before, and no failure is kept quiet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from streams.postgres.database import Database
from streams.postgres.migrate import migrate_schema
from streams.resources.machine import Machine
from streams.settings import Settings
from streams.sink_postgres import PostgresSink, Written
from streams.worker.lanes import Lanes
from streams.worker.slices import Chain, Slice
from streams.worker.throttle import Throttle
from tests.conftest import SettingsFactory
from tests.support import merge_model as model
from tests.support.patience import PATIENCE

DID = model.DIDS[0]
P0 = TP("t", 0)


@dataclass
class Record:
    """A Kafka record, as far as slices and sink look at it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    timestamp_type: int = 0


@dataclass
class Event:
    """The Faust event of a slice."""

    value: Slice
    acked: bool = False

    def ack(self) -> bool:
        self.acked = True
        return True


@dataclass
class Site(PostgresSink):
    """The sink, and the transport's side of the lanes: the chain, and what each was told."""

    database: Database
    chain: Chain = field(default_factory=Chain)
    durable: dict[TP, int] = field(default_factory=dict)
    sought: list[TP] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    writes: list[tuple[int, int]] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    breaks_at: int = -1

    def __post_init__(self) -> None:
        PostgresSink.__init__(self, self.database, topic="t", group="g")
        self.chain.void([P0])
        self.chain.arm(P0, 0)

    # -- the source
    def is_current(self, piece: Slice) -> bool:
        return self.chain.is_current(piece)

    def mark_durable(self, tp: TP, next_offset: int) -> None:
        self.durable[tp] = next_offset

    def reseek(self, tp: TP) -> None:
        self.sought.append(tp)
        self.chain.void([tp])

    # -- the sink
    async def write(
        self, partition: int, base: int, next_offset: int, records: Sequence[Any], *more: Any, **named: Any
    ) -> Written:
        assert self.durable.get(P0, 0) <= base, "acknowledged before it was committed"
        assert not [e for e in self.events if e.acked and e.value.next_offset > base], "let go before it was committed"
        assert next_offset == records[-1].offset + 1
        if base <= self.breaks_at < next_offset:
            raise RuntimeError("a fault of ours")
        written = await super().write(partition, base, next_offset, records, *more, **named)
        assert (await self.positions({0}, {}))[0] == next_offset
        self.writes.append((base, next_offset))
        return written

    async def submit(self, lanes: Lanes, sizes: Sequence[int]) -> None:
        """Slices of these sizes, one after the other."""
        for size in sizes:
            base = self.chain.armed[P0]
            records = [
                Record(offset, DID.encode(), model.message(offset, model.commit(DID, f"r{offset}", 1, 1)).value)
                for offset in range(base, base + size)
            ]
            piece = self.chain.link(P0, records)  # type: ignore[arg-type] # a list of records
            assert isinstance(piece, Slice)
            self.events.append(Event(piece))
            await lanes.submit(self.events[-1])

    async def settled(self) -> None:
        """Wait until every slice was let go."""
        async with asyncio.timeout(PATIENCE):
            while not all(event.acked for event in self.events):  # noqa: ASYNC110 (Faust has no event for it either)
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)

    def lanes(self, settings: Settings, folder: Path) -> Lanes:
        throttle = Throttle(settings, Machine(settings))
        return Lanes(self, self, throttle, on_written=self.on_written, on_fault=self.faults.append)

    def on_written(self, _partition: int, written: Written, seconds: float) -> None:
        self.written.append(written)
        self.seconds.append(seconds)


@pytest.fixture
async def site(dsn: str) -> AsyncIterator[Site]:
    database = Database(dsn, "firehose", 3)
    await migrate_schema(database)
    made = Site(database)
    await made.positions({0}, {0: 0})
    yield made
    await database.close()


WHOLE = {"backfill_profile": "unlimited"}
PACED = {"backfill_batch_size": 3, "backfill_batch_delay_ms": 1, "backfill_use_idle": False}


@pytest.mark.parametrize("pace", [WHOLE, PACED], ids=["whole", "paced"])
async def test_slices_are_let_go_after_their_commit(
    site: Site, settings: SettingsFactory, tmp_path: Path, pace: dict[str, Any]
) -> None:
    lanes = site.lanes(settings(**pace), tmp_path)
    await site.submit(lanes, [4, 1, 7, 2])
    await site.settled()
    assert site.durable == {P0: 14}
    assert [base for base, _ in site.writes] == [0, *(end for _, end in site.writes[:-1])]
    assert sum(written.applied for written in site.written) == 14
    if pace is PACED:
        assert max(end - base for base, end in site.writes) == 3
    assert not site.faults
    assert len(site.seconds) == len(site.writes)
    assert all(0 < seconds < PATIENCE for seconds in site.seconds)
    assert (lanes.writing, lanes.most_writing) == (0, 1)


@pytest.mark.parametrize("pace", [WHOLE, PACED], ids=["whole", "paced"])
async def test_a_failure_is_told_and_ends_the_lane(
    site: Site, settings: SettingsFactory, tmp_path: Path, pace: dict[str, Any]
) -> None:
    lanes = site.lanes(settings(**pace), tmp_path)
    site.breaks_at = 5
    await site.submit(lanes, [4])
    await site.settled()
    await site.submit(lanes, [4])
    await site.settled()
    assert [str(fault) for fault in site.faults] == ["a fault of ours"]
    assert lanes.failed is site.faults[0]
    assert site.durable[P0] <= 5
    await site.submit(lanes, [2])  # nothing is written any more
    await site.settled()
    assert site.durable[P0] == (await site.positions({0}, {}))[0] <= 5


async def test_a_fence_seeks_anew_and_nothing_is_durable(site: Site, settings: SettingsFactory, tmp_path: Path) -> None:
    other = [model.message(i, model.commit(DID, f"other{i}", 1, 1)) for i in range(2)]
    await PostgresSink(site.database, topic="t", group="g").write(0, 0, 2, other)
    await site.submit(site.lanes(settings(**WHOLE), tmp_path), [4, 4])
    await site.settled()
    assert (site.sought, site.durable, site.faults, site.writes) == ([P0], {}, [], [])
    assert await site.positions({0}, {}) == {0: 2}
