"""The judgement on the machine: hysteresis, pressures, and whose work is whose."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.resources.idleness import CPU, DISK, MEMORY, IdleJudge, MachineSample, reason
from streams.resources.machine import disk_bytes
from streams.resources.own_processes import in_container, is_ours, is_server, server_addresses

QUIET = MachineSample(0.0, memory_pressure=0.0, io_pressure=0.0, our_io=0.0)


def judged(judge: IdleJudge, *others: float) -> list[bool]:
    return [judge.sample(MachineSample(share)) for share in others]


def test_idleness_has_hysteresis() -> None:
    judge = IdleJudge()
    assert not judge.idle  # until it is known
    assert judged(judge, 0.0, 0.0, 0.0) == [False, False, True]
    assert judged(judge, 0.15, 0.9, 0.15, 0.9, 0.15) == [True] * 5  # a single busy second is none
    assert judged(judge, *[0.0] * 30) == [True] * 30
    assert judged(judge, 0.5, 0.5) == [True, False]
    assert judged(judge, 0.05, 0.15, 0.05, 0.05, 0.05) == [False, False, False, False, True]


@given(st.booleans(), st.lists(st.floats(CPU.idle, CPU.busy), max_size=60))
def test_between_the_thresholds_it_stays_what_it_was(idle: bool, shares: list[float]) -> None:
    judge = IdleJudge()
    if idle:
        judged(judge, 0, 0, 0)
    assert judged(judge, *shares) == [idle] * len(shares)


@given(st.lists(st.floats(0.0, 1.0), max_size=300))
def test_it_never_changes_faster_than_it_promises(shares: list[float]) -> None:
    judge = IdleJudge()
    states = judged(judge, *shares)
    runs = [(idle, len(list(group))) for idle, group in itertools.groupby(states)]
    for idle, length in runs[1:-1]:
        assert length >= (judge.TO_BUSY if idle else judge.TO_IDLE)
    for at in [i for i in range(1, len(states)) if states[i] != states[i - 1]]:
        last = shares[at - (judge.TO_IDLE if states[at] else judge.TO_BUSY) + 1 : at + 1]
        assert all(share < CPU.idle if states[at] else share > CPU.busy for share in last)


def test_work_of_ours_that_we_do_not_know_does_not_make_it_flap() -> None:
    """A database that we cannot see works when we do: each try takes twice as long as the one before."""
    judge = IdleJudge()
    changes, was = 0, False
    for _ in range(600):
        idle = judge.sample(MachineSample(0.5 if judge.idle else 0.02))
        changes, was = changes + (idle != was), idle
    assert changes <= 2 * (5 + 600 // judge.MOST_TO_IDLE)
    judged(judge, *[0.0] * (judge.MOST_TO_IDLE + judge.SETTLED))  # it was somebody else after all
    assert judged(judge, 0.9, 0.9, 0.0, 0.0, 0.0)[-1]


@pytest.mark.parametrize(
    ("pressed", "busy", "words"),
    [
        (replace(QUIET, memory_pressure=MEMORY.busy + 1), True, "memory is short for 11 % of the time"),
        (replace(QUIET, memory_pressure=MEMORY.busy + 1, our_io=1.0), True, "memory is short"),
        (replace(QUIET, memory_pressure=MEMORY.busy - 1), False, "memory is short for 9 %"),
        (replace(QUIET, io_pressure=DISK.busy + 1), True, "others keep the disk waiting for 41 % of the time"),
        (replace(QUIET, io_pressure=DISK.busy + 1, our_io=0.49), True, "others keep the disk waiting"),
        (replace(QUIET, io_pressure=99.0, our_io=0.5), False, "others use 0 % of the machine"),
        (replace(QUIET, io_pressure=99.0, our_io=None), False, "others use 0 %"),
        (MachineSample(0.0, memory_pressure=None, io_pressure=None), False, "others use 0 %"),
        (replace(QUIET, others=0.84, memory_pressure=50.0), True, "others use 84 % of the machine"),
    ],
)
def test_pressures(pressed: MachineSample, busy: bool, words: str) -> None:
    judge = IdleJudge()
    for _ in range(40):
        judge.sample(QUIET)
    assert judge.idle
    assert [judge.sample(pressed) for _ in range(3)][-1] is not busy
    assert words in reason(pressed)


def test_under_pressure_it_does_not_become_idle() -> None:
    for pressed in (replace(QUIET, memory_pressure=MEMORY.idle), replace(QUIET, io_pressure=DISK.idle)):
        judge = IdleJudge()
        assert not any(judge.sample(pressed) for _ in range(20))


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/x/python -m streams.ingest --days 7", True),
        ("python -m faust -A streams.agents worker", True),
        ("/x/python /x/bin/faust -A streams.agents worker", True),
        ("/x/python -m streams.simulator --generate 5", True),
        ("python -m streamsets.x", False),
        ("vim streams.agents", False),
        ("grep -A 3 streams.agents", False),
        ("", False),
    ],
)
def test_which_commands_are_ours(command: str, ours: bool) -> None:
    assert is_ours(command.split()) is ours


def test_which_are_servers() -> None:
    assert is_server(["postgres: walwriter "])
    assert is_server(["/usr/lib/postgresql/18/bin/postgres", "-D", "/data"])
    assert is_server(["java", "-Xmx1g", "kafka.Kafka", "server.properties"])
    assert not is_server(["psql", "postgres"])
    assert not is_server([])


@pytest.mark.parametrize(
    ("text", "port", "found"),
    [
        ("a:9092, b:9093", 9092, [("a", 9092), ("b", 9093)]),
        (":9092", 9092, [("localhost", 9092)]),
        ("[::1]:9092", 9092, [("::1", 9092)]),
    ],
)
def test_addresses_of_servers(text: str, port: int, found: list[tuple[str, int]]) -> None:
    assert server_addresses(text, port) == found


def test_bytes_of_the_disks_and_not_of_what_lies_on_them(tmp_path: Path) -> None:
    for name, below in (("sda", ()), ("dm-0", ("sda",)), ("loop0", ())):
        (tmp_path / name / "slaves").mkdir(parents=True)
        (tmp_path / name / "stat").write_text("1 0 100 0 1 0 300 0 0 0 0\n")
        for disk in below:
            (tmp_path / name / "slaves" / disk).touch()
    assert disk_bytes(tmp_path) == 400 * 512
    assert disk_bytes(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("root", "container"),
    [
        (
            "612 510 0:52 / / rw,relatime - overlay overlay rw,lowerdir=/x\n613 612 0:5 / /proc rw - proc proc rw\n",
            True,
        ),
        (
            "24 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n90 24 0:52 / /var/lib/docker/x rw - overlay overlay rw\n",
            False,
        ),
        ("", False),
    ],
)
def test_whether_we_are_in_a_container(tmp_path: Path, root: str, container: bool) -> None:
    (tmp_path / "mountinfo").write_text(root)
    assert in_container(tmp_path / "mountinfo") is container
