"""The benchmark, in small: it measures everything once, and only gross ratios can fail.

Real figures need ``make bench``: more events, several rounds, and nothing else on the machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest

from benchmarks.figures import ALL, KAFKA_BYTES, RATE, WAL_BYTES, WAL_IMAGES, Figures
from benchmarks.programs import OURS
from benchmarks.rounds import Sizes, measure_round
from benchmarks.servers import Servers
from benchmarks.stages import Site
from benchmarks.summary import APPLY, END_TO_END, FLOOR, INGEST, SCRIPT, SDK, WORKER
from benchmarks.workload import Workload, serve
from benchmarks.wrong_ways import LEAST_SHARE, WRONG_WAYS, WrongWay, measure_stage
from streams.local.stack import Stack

pytestmark = pytest.mark.alone

EVENTS = 40_000
END_US = 1_790_000_000_000_000
#: Pairs of a wrong way and ours, in turns: so many, and more, up to the second number, while their median says no.
PAIRS, MOST_PAIRS = 3, 9


@pytest.fixture
async def site(embedded: Stack, tmp_path: Path) -> AsyncIterator[Site]:
    servers = Servers(embedded, tmp_path)
    async with serve(Workload(EVENTS, END_US), tmp_path) as relay:
        yield Site(servers, relay, EVENTS)


async def test_a_round_measures_everything_and_the_order_of_costs_is_as_it_should(site: Site) -> None:
    found = await measure_round(site, Workload(EVENTS, END_US), Sizes(compared=5000, script=3000), None)
    assert found.keys() == {END_TO_END, INGEST, WORKER, APPLY, SDK, SCRIPT, FLOOR}
    whole = found[END_TO_END]
    for figure in (RATE, "cpu.ingest", "cpu.kafka", "cpu.worker", "cpu.postgres", "postgres.backend", WAL_BYTES,
                   KAFKA_BYTES, "peak.ingest", "peak.worker"):  # fmt: skip
        assert whole[figure] > 0, figure
    assert whole[WAL_IMAGES] < 0.1, "the tables are fresh: no page is older than the last checkpoint"
    assert found[APPLY]["postgres.backend"] > 0
    # Nobody gets below the floor, and a script of one's own costs a multiple.
    assert found[FLOOR][ALL] < whole[ALL] < found[SCRIPT][ALL] / 2
    assert found[APPLY][ALL] < found[WORKER][ALL] < whole[ALL]


@pytest.mark.parametrize("way", WRONG_WAYS, ids=lambda way: way.folder)
async def test_a_wrong_way_shows_in_its_stage(site: Site, way: WrongWay) -> None:
    ratios: list[float] = []
    while len(ratios) < PAIRS or (len(ratios) < MOST_PAIRS and median(ratios) <= 1 + LEAST_SHARE):
        ours: Figures = await measure_stage(site, way.stage, OURS)
        wrong = await measure_stage(site, way.stage, way.version())
        ratios.append(wrong[way.figure] / ours[way.figure])
    assert median(ratios) > 1 + LEAST_SHARE, ratios
