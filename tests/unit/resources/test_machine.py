"""What counts as other work on the machine: by a made-up /proc, so that every case can be had."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.resources import own_processes
from streams.resources.cgroups import Cgroups
from streams.resources.idleness import IdleJudge, MachineSample, reason
from streams.resources.machine import Machine
from streams.resources.others import Other
from streams.resources.process_table import ProcessEntry, parse_stat
from streams.resources.shares import NOT_SEEN, spent
from streams.settings import Settings
from tests.support.made_proc import MadeProc

US = os.getpid()
OURS = f"p{US}"


class Made:
    """A machine with an init, a kernel thread, a shell and us; ``seconds`` gives the samples of as many seconds."""

    def __init__(self, folder: Path, *, in_container: bool = False) -> None:
        self.proc = MadeProc(folder)
        self.proc.begin(1, 0, "init")
        if not in_container:
            self.proc.begin(2, 0, "kthreadd", kernel=True)
            self.proc.begin(3, 2, "kcryptd", kernel=True)
        self.proc.begin(50, 1, "bash", "bash")
        self.proc.begin(US, 50, "python", "python -m streams.ingest", used=500.0)
        self.proc.write()
        self.machine = self.looking()

    def looking(self) -> Machine:
        """A machine that has looked once."""
        settings = Settings(
            _env_file=None, kafka_bootstrap_servers="192.0.2.1:9092", database_url="postgresql://u@192.0.2.1/d",
        )  # type: ignore[call-arg, arg-type]  # fmt: skip
        self.proc.write()
        machine = Machine(settings, self.proc.folder, Cgroups((), (), ()), lambda: self.proc.at)
        assert not machine.sample().is_known  # nothing to compare with yet
        return machine

    def second(self, steal: float = 0.0, **work: float) -> MachineSample:
        self.proc.second(steal, **work)
        return self.machine.sample()


@pytest.fixture(autouse=True)
def _in_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests themselves run in."""
    monkeypatch.setattr(own_processes, "in_container", lambda: False)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


@pytest.mark.parametrize("steal", [0.0, 0.02, 0.4, 0.66, 1.2, 1.9])
def test_what_the_hypervisor_withholds_is_nobodys_work(made: Made, steal: float) -> None:
    """It grows with our own work: were it others', the machine would never be idle while we work."""
    judge = IdleJudge()
    samples = [made.second(steal, **{OURS: 2.0 - steal}) for _ in range(8)]
    assert [sample.others for sample in samples] == [0.0] * 8
    assert [judge.sample(sample) for sample in samples][2:] == [True] * 6
    assert reason(samples[-1]) == "others use 0 % of the machine"


def test_in_a_container_it_is_nobodys_work_either(tmp_path: Path) -> None:
    made = Made(tmp_path, in_container=True)
    assert made.second(0.66, **{OURS: 1.34}).others == pytest.approx(0.0, abs=0.01)


def test_others_are_named_the_largest_three(made: Made) -> None:
    for pid, name in ((60, "chrome"), (61, "chrome"), (62, "java"), (63, "my (odd) name"), (64, "small")):
        made.proc.begin(pid, 1, name)
    made.second()
    sample = made.second(0.3, p60=0.4, p61=0.2, p62=0.5, p63=0.1, p64=0.02, **{OURS: 0.5})
    assert sample.others == pytest.approx(0.61)
    assert sample.top == (Other("chrome", 0.3), Other("java", 0.25), Other("my (odd) name", 0.05))
    assert reason(sample) == "others use 61 % of the machine (chrome 30 %, java 25 %, my (odd) name 5 %)"


def test_kernel_threads_are_nobodys(made: Made) -> None:
    assert made.second(p3=1.5, **{OURS: 0.5}).others == 0.0


def test_what_comes_and_goes_between_two_looks_is_its_parents(made: Made) -> None:
    """A build of a thousand short compilers: none of them is ever seen."""
    made.proc.begin(60, 1, "make")
    made.second()
    made.proc.begin(61, 60, "cc1", used=0.9)
    made.proc.begin(62, 60, "cc1", used=0.7)
    made.proc.end(61)
    made.proc.end(62)
    sample = made.second(p60=0.1)
    assert sample.others == pytest.approx(0.85)
    assert sample.top == (Other("make", 0.85),)


@pytest.mark.parametrize("reaper", [60, 1, 50])
def test_a_process_that_ends_is_not_counted_with_its_past(made: Made, reaper: int) -> None:
    """Whoever waits for it is given all that it used in its life: that was counted as it was used."""
    made.proc.begin(60, 1, "shell")
    made.proc.begin(61, 60, "old", used=90_000.0)
    made.second()
    made.proc.processes[61].used += 0.3
    made.proc.end(61, by=reaper)
    assert made.second().others == pytest.approx(0.15)


def test_our_own_past_is_not_the_shells(made: Made) -> None:
    made.proc.begin(70, 50, "python", "python -m streams.local run", used=4_000.0)
    made.second(p70=1.0)
    made.second(p70=1.0)
    made.proc.end(70)
    assert made.second().others == 0.0


def test_our_children_are_ours_from_their_first_second_on(made: Made) -> None:
    made.second()
    made.proc.begin(70, US, "faust")
    made.proc.begin(71, 70, "sort")
    assert made.second(p70=1.0, p71=0.9).others == 0.0
    made.proc.end(70)  # and they stay ours when their parent has ended
    assert made.second(p71=1.0).others == 0.0


def test_a_command_of_ours_from_elsewhere_is_known_when_it_is_seen_again(made: Made) -> None:
    made.second()
    made.proc.begin(80, 1, "sh", "sh -c something")
    made.second()
    made.proc.processes[80].command = ["python", "-m", "streams.simulator"]  # a shell becomes what it starts
    made.proc.begin(81, 1, "faust", "python -m faust -A streams.agents worker")
    made.second()
    sample = made.second(p81=1.0)
    assert sample.others == 0.0


def test_a_pid_that_is_used_again_is_another_process(made: Made) -> None:
    made.proc.begin(60, 50, "old", used=700.0)
    made.second()
    made.proc.end(60)
    made.proc.begin(60, 50, "new")
    sample = made.second(p60=0.5)
    assert sample.top == (Other("new", 0.25),)


def test_in_a_container_what_is_outside_counts_too(tmp_path: Path) -> None:
    made = Made(tmp_path, in_container=True)
    made.proc.begin(60, 1, "cron")
    made.second()
    made.proc.busy += 0.8  # a neighbour's, who cannot be seen
    sample = made.second(0.2, p60=0.2, **{OURS: 0.6})
    assert sample.others == pytest.approx(0.5)
    assert sample.top == (Other(NOT_SEEN, 0.4), Other("cron", 0.1))


@pytest.mark.parametrize(("inside", "others"), [(True, 0.0), (False, 0.8)])
def test_a_container_that_sees_the_machine_knows_its_servers_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, others: float
) -> None:
    """With ``pid: host``: what serves us is in other containers, at private addresses, and nobody here listens."""
    monkeypatch.setattr(own_processes, "in_container", lambda: inside)
    made = Made(tmp_path)
    made.proc.begin(60, 1, "postgres", "postgres: u d 172.18.0.4(1) INSERT")
    made.proc.begin(61, 1, "java", "java -Xmx768m kafka.Kafka server.properties")
    made.proc.begin(62, 1, "faust", "faust -A streams.agents worker")  # a sibling's
    made.machine = made.looking()
    assert made.second(p60=0.9, p61=0.7, p62=0.2, **{OURS: 0.2}).others == pytest.approx(others)


@pytest.mark.parametrize(("servers", "others"), [(0.6, 0.0), (0.9, 0.15)])
def test_a_container_s_servers_are_taken_off_as_far_as_they_can_be_for_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: float, others: float
) -> None:
    """Unseen, they may be all that the machine does besides: up to one and a half times our own work is theirs."""
    monkeypatch.setattr(own_processes, "in_container", lambda: True)
    made = Made(tmp_path, in_container=True)
    made.machine = made.looking()
    made.proc.busy += servers
    assert made.second(**{OURS: 0.4}).others == pytest.approx(others, abs=0.01)


def test_a_machine_that_cannot_be_looked_at_counts_as_busy(made: Made) -> None:
    (made.proc.folder / "stat").write_text("nonsense\n")
    sample = made.machine.sample()
    assert (sample.others, sample.is_known) == (1.0, False)
    assert reason(sample) == "whether the machine is idle is not known yet"


@pytest.mark.parametrize("line", [b"", b"7", b"7 (x", b"7 (x) S 1", b"x (x) S" + b" 1" * 30, b"(7) 7"])
def test_a_line_that_says_nothing_is_no_process(line: bytes) -> None:
    assert parse_stat(line) is None


@given(st.integers(0, 2**32))
def test_every_second_of_work_is_counted_once(seed: int) -> None:
    """Whatever begins, works, ends and is waited for between two looks, by its parent or by init."""
    random, tree, work = Random(seed), Tree(), 0.0
    for _ in range(random.randrange(30)):
        tree.step(random)
    before = tree.table()
    for _ in range(random.randrange(30)):
        work += tree.step(random)
    assert sum(spent(before, tree.table()).values()) == pytest.approx(work)


class Tree:
    """Processes as Linux has them; numbers are ticks."""

    def __init__(self) -> None:
        self.born = 1
        self.there: dict[int, list[int]] = {1: [0, 0, 1, 0, 0]}  # pid: parent, _, started, used, reaped

    def step(self, random: Random) -> int:
        """Something happens; returns how much somebody has worked."""
        pid = random.choice(list(self.there))
        match random.randrange(4):
            case 0:
                self.born += 1
                free = next(n for n in range(1, 99) if n not in self.there)
                self.there[free] = [pid, 0, self.born, 0, 0]
            case 1 if pid != 1:
                parent, _, _, used, reaped = self.there.pop(pid)
                self.there[parent][4] += used + reaped
                for process in self.there.values():
                    process[0] = 1 if process[0] == pid else process[0]
            case _:
                work = random.choice([1, 5, 4_000])
                self.there[pid][3] += work
                return work
        return 0

    def table(self) -> dict[int, ProcessEntry]:
        return {
            pid: ProcessEntry((pid, started), parent, "x", float(used), float(reaped), False)
            for pid, (parent, _, started, used, reaped) in self.there.items()
        }
