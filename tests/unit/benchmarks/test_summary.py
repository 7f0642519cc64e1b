"""Figures of one measurement, medians and ratios of several rounds, and the table of them."""

from __future__ import annotations

import pytest

from benchmarks.figures import ALL, KAFKA_BYTES, RATE, WAL_BYTES, WAL_IMAGES, Measured, figures_of
from benchmarks.report import table
from benchmarks.summary import (
    APPLY,
    BEFORE,
    END_TO_END,
    FLOOR,
    INGEST,
    RATIOS,
    SCRIPT,
    SDK,
    WORKER,
    Round,
    Spread,
    ratios,
    spread,
    summarize,
)


def a_round(rate: float, cost: float) -> Round:
    whole = {RATE: rate, ALL: cost, "cpu.relay": 2.0, "cpu.ingest": cost / 2, "cpu.worker": cost / 2,
             "postgres.backend": 9.0, "peak.worker": 1e8, WAL_BYTES: 650.0, WAL_IMAGES: 0.01}  # fmt: skip
    return {
        END_TO_END: whole, END_TO_END + BEFORE: {RATE: 10_000.0, ALL: 80.0, "cpu.ingest": 25.0},
        SDK: {RATE: 20_000.0, ALL: 50.0}, FLOOR: {"floor.objects": 20.0, ALL: 20.0},
    }  # fmt: skip


def test_figures_are_for_one_event_row_and_second() -> None:
    measured = Measured(
        2000, 4.0, {"relay": 0.002, "ingest": 0.02, "worker": 0.01}, {"backend": 0.008}, peak={"worker": 5}, rows=1000,
        wal_bytes=650_000, wal_images=10, kafka_bytes=240_000,
    )  # fmt: skip
    found = figures_of(measured)
    assert found[RATE] == 500
    assert found["cpu.relay"] == pytest.approx(1)
    assert found["cpu.ingest"] == pytest.approx(10)
    assert found[ALL] == pytest.approx(15)  # the relay is not part of it
    assert found["postgres.backend"] == pytest.approx(4)
    assert (found[WAL_BYTES], found[WAL_IMAGES], found[KAFKA_BYTES], found["peak.worker"]) == (650, 0.01, 120, 5)


def test_what_was_not_measured_is_no_figure() -> None:
    assert figures_of(Measured(10, 1.0, {})).keys() == {RATE, ALL}


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert spread([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0)


def test_ratios_are_made_within_each_round() -> None:
    # The machine is half as fast in the second round, for all that runs in it: the ratio does not see it.
    slow = {name: {figure: value / 2 if figure == RATE else value for figure, value in figures.items()}
            for name, figures in a_round(40_000, 40).items()}  # fmt: skip
    found = ratios([a_round(40_000, 40), slow])
    assert found["speed against the SDK decoding on one core"] == Spread(2.0, 2.0, 2.0)
    assert found["speed against the version before"] == Spread(4.0, 4.0, 4.0)
    assert found["CPU of the floor against ours"] == Spread(0.5, 0.5, 0.5)
    assert found["CPU of the ingest against the version before"] == Spread(0.8, 0.8, 0.8)
    assert not any("script" in title for title in found)


def test_every_ratio_is_of_something_that_a_round_measures() -> None:
    measured = {END_TO_END, INGEST, WORKER, APPLY, SDK, SCRIPT, FLOOR}
    for ratio in RATIOS:
        assert {name.removesuffix(BEFORE) for name, _ in (ratio.over, ratio.under)} <= measured
    assert len({ratio.title for ratio in RATIOS}) == len(RATIOS)


def test_the_table_has_everything_that_was_measured() -> None:
    rounds = [a_round(40_000, 40), a_round(44_000, 36), a_round(42_000, 38)]
    lines = table(summarize(rounds), ratios(rounds)).splitlines()
    assert any(line.split() == ["end", "to", "end", "42,000", "(40,000", "to", "44,000)"] for line in lines)
    assert any("ingest 19.0  worker 19.0  all 38.0  (36.0 to 40.0)" in line for line in lines)
    assert any("backend 9.00" in line for line in lines)
    assert any(line.split()[:2] == ["objects", "20.0"] for line in lines)
    assert any("WAL 650 bytes and 0.0100 images a row" in line for line in lines)
    assert any("peak RSS of the worker 100 MB" in line for line in lines)
    assert any("speed against the version before" in line and "4.20  (4.00 to 4.40)" in line for line in lines)
