"""One campaign: traffic flows, faults happen by the schedule, then all must be there once, and be accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.faults import INGESTS, WORKERS, Planned, schedule
from tests.chaos.ledger import Ledger, event_of
from tests.chaos.site import Exit, Site, opened
from tests.support.patience import slowness

#: Frames that the relay gives out in a second, in turns: nothing, little, and more than the workers' pace.
RATES = (0, 100, 300, 300, 1000)
#: Nothing may stand still for longer, in seconds, where nothing that it needs is broken; more on a busy machine.
LONGEST_STALL = 30.0
#: A process that gave up waiting ends so many seconds after what it waited for was mended, at most.
AFTERMATH = 15.0
#: Seconds for everything to settle after the last fault.
SETTLE_SECONDS = 600.0


@dataclass
class Report:
    """What happened, and what came of it. ``lost``, ``doubled`` and ``wrong`` are sentences; none is as it must be."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unexplained: list[Exit] = field(default_factory=list)
    exits: int = 0
    events: int = 0
    resets: int = 0
    received: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    longest_stall: float = 0.0
    longest_wait: float = 0.0
    stall_limit: float = LONGEST_STALL
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Everything that must not be; empty is a pass."""
        exits = [f"{e.name} ended by itself with {e.code}:\n{e.tail}" for e in self.unexplained]
        stalls = [f"a partition stood for {self.longest_stall:.0f} s"] if self.longest_stall > self.stall_limit else []
        return [*self.lost, *self.doubled, *self.wrong, *exits, *stalls]


class Campaign:
    """A campaign on a site."""

    def __init__(self, site: Site, seed: int, say: Callable[[str], None]) -> None:
        self._site, self._say = site, say
        self._chance = Random(f"traffic {seed}")
        self.report = Report(seed)
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._blocking = 0
        self._freed = time.monotonic()
        slow = slowness()
        self.report.stall_limit = LONGEST_STALL * slow
        site.blocked_lately = lambda: bool(self._blocking) or time.monotonic() - self._freed < AFTERMATH * slow

    async def run(self, faults: list[Planned]) -> Report:
        """All of it."""
        began = time.monotonic()
        for name in (*INGESTS, *WORKERS):
            self._site.keep(name)
        beside = [asyncio.create_task(work) for work in (self._site.supervise(), self._watch(), self._publish())]
        try:
            await self._until(lambda positions: len(positions) == 8, "the first positions of all partitions")
            for number, planned in enumerate(faults):
                await self._start(number, planned)
            await asyncio.gather(*self._busy.values())
            beside.pop().cancel()
            await self._publish_rest()
            await self._settle()
        finally:
            for task in (*beside, *self._busy.values()):
                task.cancel()
            await asyncio.gather(*beside, *self._busy.values(), return_exceptions=True)
        await self._site.stop()
        self.report.seconds = time.monotonic() - began
        await self._judge()
        return self.report

    # -- what happens

    async def _start(self, number: int, planned: Planned) -> None:
        """Begin a fault when it is due and its target is whole."""
        await asyncio.sleep(planned.after)
        before = self._busy.get(planned.target)
        if before is not None:
            await before
        self._say(f"{number + 1:4} {planned.kind.name} ({planned.target})")
        self.report.faults[planned.kind.name] += 1
        self._busy[planned.target] = asyncio.create_task(self._suffer(planned))

    async def _suffer(self, planned: Planned) -> None:
        self._blocking += planned.kind.blocks
        try:
            await planned.kind.do(self._site, Random(planned.seed), planned.target)
        finally:
            self._blocking -= planned.kind.blocks
            self._freed = time.monotonic()

    async def _publish(self) -> None:
        while True:
            rate = self._chance.choice(RATES)
            for _ in range(10):
                if rate:
                    await self._site.publish(rate // 10)
                await asyncio.sleep(0.1)

    async def _publish_rest(self) -> None:
        """All that is left, one sequence after the other; ``wrong`` where one is not applied in time."""
        relay = self._site.relay
        with contextlib.suppress(AssertionError):
            for pause in self._site.deployment.patiently("the last sequence", SETTLE_SECONDS):
                if relay.head_index == len(relay.store):
                    return
                await self._site.publish(len(relay.store))
                await asyncio.sleep(pause)
        self.report.wrong.append(f"after {SETTLE_SECONDS:.0f} s the sequence that ends at {relay.head} is not applied")

    # -- how it goes

    async def _watch(self) -> None:
        """How long each partition stands still: about every second a watermark comes to each."""
        moved: dict[int, tuple[int, float]] = {}
        while True:
            positions, now = await self._site.deployment.offsets(), time.monotonic()
            for partition, position in positions.items():
                if moved.get(partition, (None, 0.0))[0] != position:
                    moved[partition] = (position, now)
            for partition, (_, since) in moved.items():
                self.report.longest_wait = max(self.report.longest_wait, now - since)
                if not self._blocking:
                    stall = now - max(since, self._freed)
                    if stall > self.report.stall_limit > stall - 0.5:
                        self._say(f"partition {partition} stands at {positions.get(partition)} for {stall:.0f} s")
                    self.report.longest_stall = max(self.report.longest_stall, stall)
            await asyncio.sleep(0.5)

    async def _until(self, reached: Callable[[dict[int, int]], bool], what: str) -> None:
        for pause in self._site.deployment.patiently(what):
            if reached(await self._site.deployment.offsets()):
                return
            await asyncio.sleep(pause)

    async def _settle(self) -> None:
        """Until the cursor says that everything was applied; ``wrong`` if it does not."""
        last = self._site.oracle["last_seq"]
        with contextlib.suppress(AssertionError):
            for pause in self._site.deployment.patiently("the cursor at the end", SETTLE_SECONDS):
                if await self._site.deployment.cursor() == last:
                    return
                await asyncio.sleep(pause)
        cursor = await self._site.deployment.cursor()
        self.report.wrong.append(f"after {SETTLE_SECONDS:.0f} s the cursor is at {cursor}, not at {last}")

    # -- what came of it

    async def _judge(self) -> None:
        report, deployment, oracle = self.report, self._site.deployment, self._site.oracle
        report.exits = len(self._site.exits)
        report.unexplained = [end for end in self._site.exits if not end.asked]
        messages = await deployment.messages()
        ledger = await Ledger.of(self._site.stack.dsn, deployment.schema)
        report.fates, lost = ledger.account(messages)
        report.lost += [f"in the topic, and not in the tables: {message}" for message in lost[:5]]
        sent = {event for message in messages if (event := event_of(message)) is not None}
        report.events = int(oracle["counts"]["events"])
        if len(sent) != report.events:
            report.lost.append(f"the relay had {report.events} events, {len(sent)} are in the topic")
        report.wrong += (await deployment.differences(oracle))[:10]
        await self._judge_counts(report.fates.total())

    async def _judge_counts(self, countable: int) -> None:
        report, deployment = self.report, self._site.deployment
        counts = await deployment.counts()
        report.received = counts["received"]
        if report.received != countable:
            wrong = report.doubled if report.received > countable else report.lost
            wrong.append(f"{countable} events are in the topic, {report.received} were received")
        if counts["received"] != counts["applied"] + counts["skipped"] + counts["dead"]:
            report.wrong.append(f"the counts do not add up: {counts}")
        offsets, ends = await deployment.offsets(), await deployment.ends()
        if offsets != ends:
            report.wrong.append(f"the sink stands at {offsets}, the topic ends at {ends}")
        await self._judge_gaps()

    async def _judge_gaps(self) -> None:
        """Each sequence that ended has a gap behind its end, and nothing else has one."""
        gaps = await self._site.deployment.table("gaps")
        ends = {end + 1 for end in self._site.ends_of_sequences()}
        self.report.resets = len(ends)
        self.report.wrong += [f"a gap: {gap}" for gap in gaps if gap["from_seq"] not in ends]
        found = {gap["from_seq"] for gap in gaps}
        self.report.wrong += [f"no gap tells of the end of a sequence at {end - 1}" for end in sorted(ends - found)]


async def campaign(
    folder: Path, *, seed: int, faults: int, events: int, mean_seconds: float, say: Callable[[str], None]
) -> Report:
    """A site of its own, a campaign on it, and what came of it."""
    async with opened(folder, events=events, seed=seed) as site:
        return await Campaign(site, seed, say).run(schedule(seed, faults, mean_seconds))
