"""The sentences of the status, and the page: also where strangers named things."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from streams import __version__
from streams.messages import GapKind
from streams.postgres.processes import ProcessRow
from streams.resources.others import Other
from streams.runtime.rates import Speeds
from streams.status.coverage import GapTimes
from streams.status.model import Counted, LetterSummary, Partition, Paused, Process, Rates, Status, Stretch
from streams.status.postgres_side import of_interest
from streams.status.process import IngestState, MachineUse, MemoryUse, Mode, WorkerState, ingest_mode
from streams.status.reader import seconds_left
from streams.status.troubles import Context, reaches_head, troubles
from streams.ui.terminal.status_page import page, strip

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
EVIL = "\x1b[31mevil\x07\u202e[bold]x[/bold]"


def ago(seconds: float) -> dt.datetime:
    return NOW - dt.timedelta(seconds=seconds)


def worker(machine: MachineUse | None = None, **changes: Any) -> Process:
    state = WorkerState(
        mode=Mode.WHOLE_SLICES, why="the machine is idle", memory=MemoryUse(100 << 20, 512 << 20), machine=machine,
        partitions=(0, 1), received=10, processed=9, skipped=1, dead=0, rate=5.0, transactions=1, transactions_max=2,
    )  # fmt: skip
    facts: dict[str, Any] = {
        "kind": "worker", "host": "one", "pid": 1, "version": __version__, "alive": True, "started_at": ago(100),
        "seen_at": ago(1), "ended_at": None, "worker": state,
    }  # fmt: skip
    return Process(**{**facts, **changes})


def ingest(**changes: Any) -> Process:
    state = IngestState(
        mode=Mode.FULL_SPEED, why="", memory=MemoryUse(1, 2), machine=None, relay="relay.example", run=1, plan="start",
        seq=5, time=ago(10), head=NOW, oldest=None, covered_from=None, frames=1, events=1, dead=0, gaps=0, rate=100.0,
        bytes_rate=1.0, speed=2.0, left=50.0, window_left=None,
    )  # fmt: skip
    said = {name: changes.pop(name) for name in list(changes) if name in IngestState.__struct_fields__}
    process = worker(kind="ingest", worker=None, pid=2, ingest=msgspec.structs.replace(state, **said))
    return msgspec.structs.replace(process, **changes)


WELL = Status(
    at=NOW, version=__version__, topic="t", schema="s", group="g", relay="relay.example", run=1, plan="start",
    asked_days=1, asked_from=ago(86400), covered_from=ago(86400), covered_to=ago(20), head=NOW, cursor="5",
    partitions=(Partition(0, 0, 5, 9, 4, 5, ago(20), "one:1"),), lag=4, received=10, applied=8, skipped=1, dead=1,
    dead_letters=0, gaps=0, rates=Rates(100.0, 90.0, 80.0), seconds_left=1.0, paused=None,
    processes=(worker(), ingest()), coverage=(), collections=(), last_letters=(), troubles=(),
)  # fmt: skip
CONTEXT = Context(members=("one",), newest=ago(10))


def told(context: Context = CONTEXT, **changes: Any) -> str:
    return "\n".join(troubles(msgspec.structs.replace(WELL, **changes), context))


def context(**changes: Any) -> Context:
    return msgspec.structs.replace(CONTEXT, **changes)


def test_nothing_is_wrong() -> None:
    assert told() == ""


DOWN = worker(alive=False, seen_at=ago(180))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "No worker runs (the last one was seen 3m00s ago on one)",
            told(context(members=()), processes=(DOWN, ingest())),
        ),
        ("No worker runs (none ever reported)", told(context(members=()), processes=(ingest(),))),
        ("and Kafka still counts 1 (one): killed a moment ago", told(processes=(DOWN, ingest()))),
        ("Kafka's group has no member", told(context(members=()))),
        ("1 worker reported (one), and Kafka's group has 2 (one, two)", told(context(members=("one", "two")))),
        (
            "No ingest runs (the last one was seen 3m00s ago",
            told(processes=(worker(), ingest(alive=False, seen_at=ago(180)))),
        ),
        (
            "the relay's head was not reached",
            told(context(newest=ago(100)), processes=(worker(), ingest(alive=False, ended_at=ago(1)))),
        ),
        (
            "No ingest runs (none ever reported here)",
            told(processes=(worker(),), run=None, rates=Rates(None, None, None)),
        ),
        (
            "The workers are paused since 2026-11-20 11:00:00Z by me (why)",
            told(paused=Paused(ago(3600), "me", "why", False)),
        ),
        ("The workers and the ingest are paused", told(paused=Paused(ago(3600), "me", "", True))),
        (
            "The worker on one (pid 1) has version 0.0.1, and this is",
            told(processes=(worker(version="0.0.1"), ingest())),
        ),
        ("The ingest on one (pid 2) waits (no relay)", told(processes=(worker(), ingest(mode=Mode.NO_RELAY)))),
        ("The lag grows by 50 messages/s, 20,000 wait", told(context(lag_grows=50.0), lag=20_000)),
        (
            "The relay's window will run out: in 1h00m",
            told(processes=(worker(), ingest(window_left=3600.0, left=7200.0))),
        ),
        (
            "A gap of 2026-11-20 11:00:00Z to an unknown time: lost",
            told(context(gaps=(GapTimes(ago(3600), None, "lost", NOW),))),
        ),
        (
            "The relay did not keep what was asked for",
            told(context(gaps=(GapTimes(ago(9), ago(8), "old", NOW, GapKind.NOT_KEPT),))),
        ),
        (
            "A dead letter: bad (and 2 more)",
            told(last_letters=(LetterSummary(0, 1, NOW, None, None, "bad"),), dead_letters=3),
        ),
        ("it was re-created", told(partitions=(Partition(0, 0, 10, 9, 0, 5, NOW, None),))),
        ("5 messages left the topic", told(partitions=(Partition(0, 10, 5, 19, 9, 5, NOW, None),))),
        ("There is no topic", told(context(topic="There is no topic t yet."))),
    ],
)
def test_each_trouble_is_a_sentence(text: str, said: str) -> None:
    assert text in said
    assert said.count("\n") == 0, "one thing is wrong, and one sentence says so"


def test_what_is_no_trouble() -> None:
    assert told(processes=(worker(), ingest(alive=False, ended_at=ago(1)))) == ""  # done: the head was reached
    assert told(context(members=None)) == ""  # we may not ask Kafka
    assert told(processes=(worker(),)) == ""  # an ingest without a database: Kafka's ends move
    old = GapTimes(ago(9e5), ago(8e5), "lost", ago(8e5))
    assert told(context(gaps=(old,)), gaps=1) == ""
    assert told(context(lag_grows=5.0)) == ""  # 4 messages


def test_strangers_strings_cannot_write_to_the_terminal() -> None:
    status = msgspec.structs.replace(
        WELL,
        relay=EVIL,
        cursor=EVIL,
        collections=(Counted(EVIL, 1),),
        last_letters=(LetterSummary(0, 1, NOW, EVIL, EVIL, EVIL),),
        coverage=(Stretch("covered", ago(100), NOW, EVIL),),
        paused=Paused(NOW, EVIL, EVIL, True),
        processes=(worker(host=EVIL, version=EVIL), ingest(why=EVIL, mode=Mode.NO_RELAY)),
    )
    said = troubles(status, context(members=(EVIL,), gaps=(GapTimes(None, None, EVIL, NOW),)))
    shown = printed(msgspec.structs.replace(status, troubles=said))
    for text in (shown, *said):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "[bold]x[/bold]" in shown, "and is shown as it is, not as markup"


def printed(status: Status) -> str:
    output = io.StringIO()
    Console(file=output, width=200, highlight=False, markup=False, no_color=True).print(page(status))
    return output.getvalue()


def test_what_is_counted_as_other_work_is_named() -> None:
    top = (Other("chrome", 0.41), Other("\x1b[31mjava", 0.12), Other("make", 0.03))
    machine = MachineUse(others=0.6, idle=False, cores=8.0, top=top)
    shown = printed(msgspec.structs.replace(WELL, processes=(worker(machine=machine),)))
    assert "busy, 8 cores" in shown
    assert "others use 60 % of the machine (chrome 41 %, " in shown
    assert "make 3 %)" in shown
    assert "\x1b" not in shown
    # A version that did not say who they are is read as before.
    old = msgspec.json.decode(b'{"others": 0.25, "idle": false, "cores": 2}', type=MachineUse)
    assert "others use 25 % of the machine" in printed(
        msgspec.structs.replace(WELL, processes=(worker(machine=old), worker(alive=False, machine=old)))
    )


def test_a_lost_worker_is_down_until_it_is_replaced() -> None:
    lost = worker(host="two", alive=False, seen_at=ago(180))
    down = printed(msgspec.structs.replace(WELL, processes=(worker(started_at=ago(200)), lost)))
    assert "down, seen 3m00s ago" in down
    again = printed(msgspec.structs.replace(WELL, processes=(worker(started_at=ago(100)), lost)))
    assert "lost, seen 3m00s ago, and replaced" in again
    assert "down" not in again


def test_a_short_gap_is_seen_in_the_strip() -> None:
    drawn = strip((Stretch("covered", ago(86400), ago(600)), Stretch("gap", ago(600), ago(599), "lost"),
                   Stretch("covered", ago(599), NOW)), 60).plain  # fmt: skip
    assert drawn.count("!") == 1
    assert drawn.count("█") == 59


def test_rates_are_differences_over_ten_seconds() -> None:
    speeds = Speeds()
    speeds.add(0.0, 100, 50, 50)
    assert speeds.rates() == (None, None)
    for second in range(1, 31):
        speeds.add(float(second), 100 + 10 * second, 50 + 4 * second, 50 + 6 * second)
    assert speeds.rates() == (10.0, 4.0)
    assert speeds.lag_grows() == 6.0
    speeds.add(31.0, 5, 0, 5)  # another topic
    assert speeds.rates() == (None, None)
    assert speeds.lag_grows() is None


@pytest.mark.parametrize(
    ("lag", "rates", "ingest_left", "all_read", "left"),
    [
        (0, Rates(None, 0.0, 0.0), None, True, 0.0),
        (100, Rates(None, 0.0, 10.0), None, True, 10.0),
        (100, Rates(None, 0.0, 0.0), None, True, None),
        (100, Rates(None, 5.0, 10.0), 20.0, False, 20.0),
        (1000, Rates(None, 10.0, 10.0), 20.0, False, 120.0),
        # The relay has more, and nobody says when it will be read.
        (0, Rates(None, 0.0, 0.0), None, False, None),
        (100, Rates(None, 5.0, 10.0), None, False, None),
    ],
)
def test_time_left(lag: int, rates: Rates, ingest_left: float | None, all_read: bool, left: float | None) -> None:
    assert seconds_left(lag, rates, ingest_left, all_read=all_read) == left


@pytest.mark.parametrize(
    ("reached", "covered_to", "head", "processes"),
    [
        (True, ago(20), NOW, (worker(),)),
        (False, ago(30 * 3600), NOW, (worker(),)),  # killed half way
        (False, None, NOW, (worker(), ingest())),
        (False, None, None, (worker(),)),  # nothing was ever read
        (True, ago(86_400), ago(86_400), (worker(),)),  # done a day ago
        # --follow: past the head of its start, and the head is no more than what it has read.
        (False, ago(7200), ago(7200), (worker(), ingest(time=ago(7200), head=ago(90_000), speed=0.9, left=None))),
        (True, ago(2), ago(1), (worker(), ingest(time=ago(1), head=ago(90_000), speed=1.0, left=None))),
        # Nothing comes from a quiet relay.
        (True, ago(7200), ago(7200), (worker(), ingest(time=ago(7200), head=ago(90_000), speed=0.0, left=None))),
        (False, ago(7200), NOW, (worker(), ingest(time=ago(7200), speed=0.0, left=None))),
        (True, ago(20), NOW, (worker(), ingest(time=ago(7200), alive=False))),
    ],
)
def test_whether_the_head_is_reached(
    reached: bool, covered_to: dt.datetime | None, head: dt.datetime | None, processes: tuple[Process, ...]
) -> None:
    status = msgspec.structs.replace(WELL, covered_to=covered_to, head=head, processes=processes)
    assert reaches_head(covered_to, status) is reached


def test_who_is_shown() -> None:
    def seen(kind: str, pid: int, *, alive: bool, ended: bool = False, before: float = 20.0) -> ProcessRow:
        return ProcessRow(
            id=None, kind=kind, host="h", pid=pid, version="1", started_at=NOW, seen_at=NOW,  # type: ignore[arg-type]
            ended_at=NOW if ended else None, state="{}", alive=alive, seconds_ago=before,
        )  # fmt: skip

    kept = of_interest([
        seen("worker", 1, alive=True), seen("worker", 2, alive=False), seen("worker", 3, alive=False, ended=True),
        seen("worker", 4, alive=False, before=700), seen("ingest", 5, alive=False), seen("ingest", 6, alive=False),
    ])  # fmt: skip
    assert [one.pid for one in kept] == [1, 2, 5]


def test_what_an_ingest_does_is_the_first_that_is_true() -> None:
    facts: dict[str, Any] = dict.fromkeys(("stopping", "paused", "kafka_behind", "waits_for_group"), False)
    facts |= {"memory": None, "pace": ("paced", "others work")}
    assert ingest_mode(**facts, planned=True, connected=True) == ("paced", "others work")
    assert ingest_mode(**facts, planned=True, connected=False)[0] == "no relay"
    assert ingest_mode(**facts, planned=False, connected=False)[0] == "starting"
    assert ingest_mode(**{**facts, "memory": "short"}, planned=True, connected=True) == ("memory", "short")
    assert ingest_mode(**{**facts, "paused": True}, planned=True, connected=True)[0] == "paused"
