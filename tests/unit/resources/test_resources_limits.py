"""The judgements on machine and memory at their exact thresholds, and shares of the CPU by hand-made tables."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace
from typing import Any

import pytest

from streams.resources import idleness, memory_watch
from streams.resources.idleness import CPU, DISK, MEMORY, OUR_DISK, IdleJudge, MachineSample, reason
from streams.resources.in_flight import InFlightBudget
from streams.resources.memory_budgets import MB
from streams.resources.memory_watch import MemoryJudge, MemoryWatch, memory_line
from streams.resources.others import Other, others_in_words
from streams.resources.process_table import ProcessEntry
from streams.resources.shares import by_name, largest, spent, with_children

QUIET = MachineSample(0.0, memory_pressure=0.0, io_pressure=0.0, our_io=0.0)
BUSY = MachineSample(1.0)

# -- idle or busy


def test_the_thresholds_are_those_of_the_documents() -> None:
    assert [(rule.busy, rule.idle) for rule in (CPU, MEMORY, DISK)] == [(0.20, 0.10), (10.0, 5.0), (40.0, 20.0)]
    assert (IdleJudge.TO_BUSY, IdleJudge.TO_IDLE, IdleJudge.MOST_TO_IDLE, IdleJudge.SETTLED) == (2, 3, 48, 30)
    assert OUR_DISK == 0.5


def test_of_a_sample_only_the_share_of_others_must_be_known() -> None:
    assert MachineSample(0.5) == MachineSample(0.5, 1.0, None, None, None, (), True)


def idle_after(judge: IdleJudge, sample: MachineSample, most: int = 100) -> int:
    """Return how many such samples it takes until the judgement is another."""
    was = judge.idle
    for count in range(1, most + 1):
        if judge.sample(sample) is not was:
            return count
    return 0


@pytest.mark.parametrize(
    ("at", "over"),
    [
        (replace(QUIET, others=CPU.busy), replace(QUIET, others=CPU.busy + 0.001)),
        (replace(QUIET, memory_pressure=MEMORY.busy), replace(QUIET, memory_pressure=MEMORY.busy + 0.001)),
        (replace(QUIET, io_pressure=DISK.busy), replace(QUIET, io_pressure=DISK.busy + 0.001)),
    ],
)
def test_at_its_threshold_the_machine_is_not_busy(at: MachineSample, over: MachineSample) -> None:
    judge = IdleJudge()
    assert idle_after(judge, QUIET) == 3
    assert idle_after(judge, at) == 0
    assert idle_after(judge, over) == 2


@pytest.mark.parametrize(
    ("at", "under"),
    [
        (replace(QUIET, others=CPU.idle), replace(QUIET, others=CPU.idle - 0.001)),
        (replace(QUIET, memory_pressure=MEMORY.idle), replace(QUIET, memory_pressure=MEMORY.idle - 0.001)),
        (replace(QUIET, io_pressure=DISK.idle), replace(QUIET, io_pressure=DISK.idle - 0.001)),
    ],
)
def test_at_its_threshold_the_machine_is_not_idle(at: MachineSample, under: MachineSample) -> None:
    assert idle_after(IdleJudge(), at) == 0
    assert idle_after(IdleJudge(), under) == 3


def test_each_short_idleness_doubles_what_the_next_takes_and_a_long_one_ends_that() -> None:
    judge = IdleJudge()
    took = []
    for _ in range(7):
        took.append(idle_after(judge, QUIET))
        assert idle_after(judge, BUSY) == 2
    assert took == [3, 6, 12, 24, 48, 48, 48]
    assert idle_after(judge, QUIET) == 48
    for _ in range(IdleJudge.SETTLED - 3):
        judge.sample(QUIET)
    assert idle_after(judge, BUSY) == 2  # it lasted 29 samples
    assert idle_after(judge, QUIET) == 48
    for _ in range(IdleJudge.SETTLED - 2):
        judge.sample(QUIET)
    assert idle_after(judge, BUSY) == 2  # it lasted 30
    assert idle_after(judge, QUIET) == 3


def test_what_speaks_against_must_do_so_in_a_row() -> None:
    judge = IdleJudge()
    for sample in (QUIET, QUIET, BUSY, QUIET, QUIET):
        assert not judge.sample(sample)
    assert judge.sample(QUIET)
    for sample in (BUSY, QUIET, BUSY):
        assert judge.sample(sample)
    assert not judge.sample(BUSY)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (replace(QUIET, memory_pressure=MEMORY.idle), "memory is short for 5 % of the time"),
        (replace(QUIET, memory_pressure=MEMORY.idle - 0.1), "others use 0 % of the machine"),
        (replace(QUIET, io_pressure=DISK.idle), "others keep the disk waiting for 20 % of the time"),
        (replace(QUIET, io_pressure=DISK.idle - 0.1), "others use 0 % of the machine"),
        (replace(QUIET, others=CPU.idle, io_pressure=99.0), "others use 10 % of the machine"),
        (replace(QUIET, io_pressure=99.0, our_io=0.499), "others keep the disk waiting for 99 % of the time"),
        (replace(QUIET, io_pressure=99.0, our_io=0.5), "others use 0 % of the machine"),
        (replace(QUIET, is_known=False), "whether the machine is idle is not known yet"),
    ],
)
def test_the_reason_at_the_thresholds(sample: MachineSample, words: str) -> None:
    assert reason(sample) == words


@pytest.mark.parametrize(
    ("sample", "pressure"),
    [
        (replace(QUIET, io_pressure=0.5), 0.5),
        (replace(QUIET, io_pressure=99.0, our_io=0.5), 0.0),
        (replace(QUIET, io_pressure=99.0, our_io=None), 0.0),
        (replace(QUIET, io_pressure=None), 0.0),
    ],
)
def test_the_pressure_on_the_disks_is_that_of_others(sample: MachineSample, pressure: float) -> None:
    assert idleness._others_disk(sample) == pressure


def test_others_in_words() -> None:
    assert others_in_words(0.5, ()) == "others use 50 % of the machine"
    named = others_in_words(0.5, (Other("a", 0.3), Other("b", 0.05)))
    assert named == "others use 50 % of the machine (a 30 %, b 5 %)"


# -- memory


def test_the_judgement_on_memory_at_its_thresholds() -> None:
    judge = MemoryJudge(1000)
    assert judge.sample(0.0, 1000) == "go"
    assert judge.sample(5.0, 1001) == "pause"
    assert judge.sample(6.0, 900) == "pause"
    assert judge.sample(7.0, 899) == "go"
    assert judge.sample(10.0, 1001) == "pause"
    assert judge.sample(39.9, 950) == "pause"
    assert judge.sample(40.0, 900) == "small"
    assert judge.sample(41.0, 5000) == "small"
    assert judge.sample(42.0, 899) == "go"


class Watched:
    """A MemoryWatch with an RSS and a clock of the test's, and how often memory was given back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.rss, self.released = 0.0, 0, 0
        self.account = InFlightBudget({"slices": 1})
        monkeypatch.setattr(memory_watch, "release_memory", self._release)
        self.watch = MemoryWatch(100 * MB, lambda: self.rss, self.account, lambda: self.now)

    def _release(self) -> None:
        self.released += 1

    def look(self, now: float, megabytes: int) -> bool:
        self.now, self.rss = now, megabytes * MB
        return self.watch.look()


def test_memory_is_given_back_above_the_limit_and_while_it_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Watched(monkeypatch)
    assert (made.watch.rss, made.watch.says) == (0, "0MB / 100MB limit: going on")
    assert not made.look(0.0, 100)
    assert (made.released, made.watch.state) == (0, "go")
    assert made.look(1.0, 101)
    assert (made.released, made.watch.state, made.account.state) == (1, "pause", "pause")
    assert not made.look(5.9, 95)
    assert made.released == 1, "not again within five seconds"
    assert not made.look(6.0, 95)
    assert made.released == 2, "it pauses, though it is below the limit"
    assert made.look(11.0, 80)
    assert (made.released, made.watch.state, made.account.state) == (3, "go", "go")
    assert not made.look(60.0, 80)
    assert made.released == 3


def test_what_release_has_freed_is_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Watched(monkeypatch)
    monkeypatch.setattr(memory_watch, "release_memory", lambda: setattr(made, "rss", 50 * MB))
    assert not made.look(1.0, 101)
    assert (made.watch.state, made.watch.rss) == ("go", 50 * MB)


def test_it_is_said_once_and_how_loud(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = Watched(monkeypatch)
    for now, megabytes in ((0.0, 50), (1.0, 200), (2.0, 200), (31.0, 200), (32.0, 200), (33.0, 10)):
        made.look(now, megabytes)
    assert [(record.levelname, record.getMessage().partition("limit: ")[2]) for record in caplog.records] == [
        ("WARNING", "pausing until some is freed"),
        ("WARNING", "nothing was freed in 30 s: going on with the smallest batches"),
        ("INFO", "going on"),
    ]
    assert memory_line(245 * MB, 512 * MB) == "245MB / 512MB limit"


def test_the_allocator_is_told_its_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are mallopt(3)'s numbers: M_TRIM_THRESHOLD -1, M_MMAP_THRESHOLD -3, M_ARENA_MAX -8."""
    told: dict[int, int] = {}

    class Library:
        def __init__(self, name: str | None) -> None:
            assert name is None

        def mallopt(self, parameter: int, value: int) -> None:
            told[parameter] = value

        def malloc_trim(self, pad: int) -> None:
            told[0] = pad

    monkeypatch.setattr(memory_watch.ctypes, "CDLL", Library)
    memory_watch.tune_allocator()
    assert told == {-1: 4 * MB, -3: 1 * MB, -8: 2}
    monkeypatch.setattr(gc, "freeze", lambda: told.update({1: 1}))
    memory_watch.freeze_startup_memory()
    assert (told[0], told[1]) == (0, 1)


# -- shares of the CPU


def process(
    pid: int, parent: int = 1, used: float = 0.0, reaped: float = 0.0, start: int = 0, **more: Any
) -> ProcessEntry:
    return ProcessEntry((pid, start), parent, more.get("name", f"p{pid}"), used, reaped, more.get("kernel", False))


def table(*processes: ProcessEntry) -> dict[int, ProcessEntry]:
    return {one.key[0]: one for one in processes}


def test_what_has_not_changed_is_left_out() -> None:
    still = process(5, used=3.0)
    assert spent(table(still, process(6, used=1.0)), table(still, process(6, used=1.5))) == {6: 0.5}
    assert spent(table(still, process(6, 5)), table(still)) == {}, "a child that had used nothing has ended"


def test_what_an_ended_process_had_used_is_taken_off_where_it_was_reaped() -> None:
    before = table(process(10), process(11, 10, used=7.0, reaped=1.0))
    assert spent(before, table(process(10, reaped=8.5))) == {10: pytest.approx(0.5)}


def test_what_somebody_else_has_reaped_is_taken_off_those_who_reaped_most() -> None:
    """The parent of 12 has ended with it: who of the others was given what they had used cannot be known."""
    before = table(process(10), process(20), process(11, 99, used=4.0))
    after = table(process(10, reaped=5.0), process(20, reaped=2.0))
    assert spent(before, after) == {10: pytest.approx(1.0), 20: pytest.approx(2.0)}
    after = table(process(10, reaped=3.0), process(20, reaped=2.0))
    assert spent(before, after) == {10: pytest.approx(0.0), 20: pytest.approx(1.0)}


def test_a_parent_that_did_not_reap_its_child_is_not_below_nothing() -> None:
    before = table(process(10), process(20), process(11, 10, used=4.0))
    after = table(process(10, used=0.25), process(20, reaped=4.5))
    assert spent(before, after) == {10: 0.25, 20: pytest.approx(0.5)}


def test_a_chain_of_ended_processes_is_their_last_ancestors_that_is_left() -> None:
    ended = process(11, 10, used=1.0), process(12, 11, used=2.0), process(13, 12, used=4.0)
    before = table(process(10), process(20), *ended)
    after = table(process(10, reaped=7.5), process(20, reaped=9.0))
    assert spent(before, after) == {10: pytest.approx(0.5), 20: pytest.approx(9.0)}


def test_a_chain_of_ended_processes_may_be_as_long_as_there_are_processes() -> None:
    ended = [process(11 + n, 10 + n, used=1.0) for n in range(8)]
    after = table(process(10, reaped=8.5), process(20, reaped=9.0))
    assert spent(table(process(10), process(20), *ended), after) == {10: pytest.approx(0.5), 20: pytest.approx(9.0)}


def test_ended_processes_that_name_each_other_as_parents_end_the_search() -> None:
    before = table(process(10), process(11, 12, used=1.0), process(12, 11, used=2.0))
    assert spent(before, table(process(10, reaped=3.5))) == {10: pytest.approx(0.5)}


def test_a_pid_that_is_used_again_begins_at_nothing() -> None:
    before = table(process(10), process(11, 10, used=9.0, reaped=1.0, start=1))
    after = table(process(10, reaped=10.0), process(11, 10, used=0.5, reaped=0.25, start=2))
    assert spent(before, after) == {10: pytest.approx(0.0), 11: pytest.approx(0.75)}


def test_a_process_and_all_below_it() -> None:
    found = table(process(1, 0), process(2, 1), process(3, 2), process(4, 1), process(5, 5))
    assert with_children(found, [(2, 0)]) == {2, 3}
    assert with_children(found, [(2, 1), (9, 0)]) == set(), "another start, and one that is gone"
    assert with_children(found, [(5, 0), (1, 0)]) == {1, 2, 3, 4, 5}


def test_the_others_by_name() -> None:
    found = table(process(1, name="a"), process(2, name="a"), process(3, name="b"), process(4, name="k", kernel=True))
    assert by_name(found, {1: 1.0, 2: 0.5, 3: 2.0, 4: 9.0}, {3}) == {"a": 1.5}
    assert by_name(found, {1: 0.0, 3: 0.001}, set()) == {"b": 0.001}


def test_the_largest_three_from_a_hundredth_on() -> None:
    seconds = {"a": 0.02, "b": 0.0199, "c" * 50: 1.0, "d": 0.12345, "e": 0.5}
    assert largest(seconds, 2.0) == (Other("c" * 40, 0.5), Other("e", 0.25), Other("d", 0.062))
    assert largest({"a": 0.02, "b": 0.0199}, 2.0) == (Other("a", 0.01),)
