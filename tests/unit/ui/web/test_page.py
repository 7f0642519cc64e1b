"""The live page: what it says in words, that it is what the View says, and that strangers' strings stay text."""

from __future__ import annotations

import datetime as dt
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from streams import text as words
from streams.status.model import Counted, Paused, Rates, Status
from streams.status.process import Mode
from streams.ui.web.drawing import HEIGHT, WIDTH, bar, ceiling, line, place_stretch
from streams.ui.web.figures import Figures
from streams.ui.web.history import SLOTS, History
from streams.ui.web.page import FILES, get, read_file, render
from streams.ui.web.view import PageView, view
from tests.support import web_samples as samples
from tests.support.web_samples import NOW, before, history, ingest_figures, worker_figures

VOID = {"meta", "link", "br", "img", "input"}


def made(
    status: Status | None, figures: Figures | None = None, trouble: str | None = None, past: History | None = None
) -> PageView:
    return view(status, trouble, figures or worker_figures(), past or history(), NOW)


class Element:
    def __init__(self, tag: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.text = ""

    def within(self, attribute: str) -> Element | None:
        """The nearest ancestor that has the attribute."""
        parent = self.parent
        while parent is not None and attribute not in parent.attributes:
            parent = parent.parent
        return parent


class Parsed(HTMLParser):
    """The elements of a page, as a browser would see them; what is in templates left out."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self._open[-1] if self._open else None)
        if not any(above.tag == "template" for above in self._open):
            self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


STATES: list[tuple[str, PageView]] = [
    ("busy", made(samples.status())),
    ("caught up", made(samples.caught_up())),
    ("hostile", made(samples.hostile())),
    ("nothing known", made(None, trouble="Kafka at 127.0.0.1:9 does not answer.", past=History())),
    ("an ingest alone", made(None, ingest_figures())),
    ("an ingest that has not begun", made(None, ingest_figures(state=None, why="it makes its plan"), past=History())),
    ("an empty schema", made(samples.status(
        partitions=(), coverage=(), collections=(), last_letters=(), processes=(), relay=None, covered_to=None,
        head=None, dead_letters=0, lag=0, seconds_left=None, troubles=(),
    ))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shown"), STATES, ids=[name for name, _ in STATES])
def test_the_first_answer_says_what_every_update_says(name: str, shown: PageView) -> None:
    rows: dict[int, Any] = {}
    counters: dict[int, int] = {}
    page = Parsed(render(shown))
    assert page.elements[0].tag == "html"
    for element in page.elements:
        scope: Any = shown
        holder = element.within("data-list")
        if element.parent is not None and element.parent is holder:  # a row begins
            assert holder is not None
            index = counters.get(id(holder), 0)
            counters[id(holder)] = index + 1
            rows[id(element)] = list_at(shown, holder.attributes["data-list"])[index]
        row: Element | None = element
        while row is not None and id(row) not in rows:
            row = row.parent
        scope = rows[id(row)] if row is not None else shown
        if (path := element.attributes.get("data-text")) is not None:
            assert element.text == get(scope, path), (name, path)
        for pair in element.attributes.get("data-bind", "").split():
            attribute, path = pair.split("=")
            assert element.attributes[attribute] == get(scope, path), (name, pair)
    for holder in (element for element in page.elements if "data-list" in element.attributes):
        assert counters.get(id(holder), 0) == len(list_at(shown, holder.attributes["data-list"]))


def list_at(shown: PageView, path: str) -> Any:
    found: Any = shown
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("name", "shown"), STATES, ids=[name for name, _ in STATES])
def test_the_page_and_its_updates_are_small(name: str, shown: PageView) -> None:
    assert len(render(shown).encode()) < 120_000
    assert len(msgspec.json.encode(shown)) < 60_000


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (0, ""), (1, "; 1 event claims a time more than an hour off"),
        (1_204, "; 1,204 events claim a time more than an hour off"),
    ],
)  # fmt: skip
def test_odd_claims_are_shown_where_there_are_any(odd: int, said: str) -> None:
    page = made(samples.status(odd_claims=odd))
    assert page.journey.postgres.detail == f"up to 07:56:20{said}"
    assert page.journey.postgres.detail in render(page)
    assert made(samples.status(odd_claims=odd, covered_to=None)).journey.postgres.detail == said.removeprefix("; ")


@pytest.mark.parametrize(
    ("repeated", "late", "said"), [(0, 0, ""), (49, 1, "; 49 sent again and passed over, 1 out of order")]
)
def test_what_came_twice_and_out_of_order_is_shown_where_there_is_any(repeated: int, late: int, said: str) -> None:
    ingest = msgspec.structs.replace(samples.INGEST, repeated=repeated, late=late)
    status = samples.status(processes=(samples.process("ingest", "host-a", 4040, ingest=ingest),))
    assert made(status).journey.ingest.said == f"full speed, 40 MB/s{said}"


def test_what_strangers_wrote_is_text() -> None:
    page = Parsed(render(made(samples.hostile())))
    scripts = [element for element in page.elements if element.tag == "script"]
    assert [script.attributes for script in scripts] == [{"src": "page.js", "defer": ""}]
    assert not any(element.tag in ("img", "style", "iframe") for element in page.elements)
    assert not any(name.startswith("on") for element in page.elements for name in element.attributes)
    text = page.elements[0].text
    for hostile in samples.HOSTILE[:2]:
        assert hostile in text
    assert not any(not c.isprintable() and c != "\n" for c in text)
    assert "x" * 500 not in text
    assert "49" not in [element.text for element in page.elements]  # no template in a template


def test_lists_are_bounded() -> None:
    many = made(
        samples.status(
            partitions=samples.status().partitions * 100,
            processes=samples.status().processes * 100,
            collections=tuple(Counted(f"com.example.n{n}", 1) for n in range(1_000)),
            last_letters=samples.status().last_letters * 100,
            troubles=tuple(f"Trouble {n}." for n in range(1_000)),
            coverage=samples.status().coverage * 200,
        )
    )
    assert len(render(many).encode()) < 200_000
    assert many.partitions_note == "the largest lags, 32 of 800"
    assert many.collections_note == "and 988 others with 988"


def test_nothing_is_fetched_from_elsewhere_and_nothing_is_inline() -> None:
    page = Parsed(render(made(samples.status())))
    for element in page.elements:
        for name in ("src", "href"):
            target = element.attributes.get(name, "")
            assert "//" not in target
            assert not target.startswith(("data:", "javascript:"))
        assert "style" not in element.attributes
    for name in FILES:
        text = read_file(name).replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "") or name == "page.js"
        assert "url(" not in text
        assert "@import" not in text
    assert not any(
        word in read_file("page.js") for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "write(")
    )


# -- how it stands, in a sentence


def test_the_headline_is_the_worst_that_is_true() -> None:
    busy, done = samples.status(), samples.caught_up()
    assert made(busy).headline.text == "Catching up: 1 h 44 min to go at this speed."
    assert made(busy).headline.detail == "At the settings' pace: others use 62 % of the machine."
    assert made(busy).charts.others == "Others use 62 % of the machine (chrome 40 %, java 12 %)."
    assert made(done).headline.text == "Caught up: everything up to 14:03:19 UTC is in Postgres."
    nobody = msgspec.structs.replace(done, processes=done.processes[1:])
    assert made(nobody).headline.text == "No worker runs."
    paused = samples.status(paused=Paused(before(hours=2), "anna", "disk is being moved", True))
    assert made(paused).headline.text == "Workers and ingest are paused since 12:03:20."
    assert made(paused).headline.detail == "By anna: disk is being moved"
    worker = msgspec.structs.replace(samples.WORKER, mode=Mode.NO_DATABASE, why="Postgres at db:5432 does not answer")
    waits = samples.status(processes=(samples.process("worker", "a", 1, worker=worker),))
    assert made(waits).headline.text == "Waiting: no database."
    assert made(None).headline.tone == "wait"


def at_rest(**changes: Any) -> tuple[str, str, str]:
    """A deployment without a message in Kafka that waits for Postgres."""
    shown = made(msgspec.structs.replace(samples.caught_up(), lag=0, **changes)).headline
    return shown.tone, shown.text, shown.detail


def test_caught_up_is_what_has_all_that_the_relay_has() -> None:
    worker, ingest = samples.caught_up().processes
    ended = msgspec.structs.replace(ingest, alive=False, ended_at=before(minutes=1))
    still = Rates(None, 0.0, 0.0)
    assert at_rest()[1].startswith("Caught up: everything up to 14:03:19 UTC")
    assert at_rest(processes=(worker, ended), rates=still) == (
        "good", "Caught up: everything up to 14:03:19 UTC is in Postgres.",
        "No ingest runs: nothing new is read from the relay.",
    )  # fmt: skip
    # Killed half way, and what it had read is applied.
    assert at_rest(processes=(worker,), rates=still, covered_to=before(hours=30), seconds_left=None) == (
        "bad", "No ingest runs.", "What came after 24 Nov 08:03 UTC is not read from the relay until one is started.",
    )  # fmt: skip
    # Nothing was ever read.
    nothing: dict[str, Any] = {"covered_to": None, "head": None, "received": 0, "seconds_left": None}
    assert at_rest(processes=(worker,), rates=still, **nothing) == (
        "bad", "No ingest runs.", "Nothing is read from the relay until one is started.",
    )  # fmt: skip
    assert at_rest(**nothing)[:2] == ("busy", "Nothing has come from the relay yet.")
    # It follows, and is hours behind; or nobody hears of it, and it writes.
    assert ingest.ingest is not None
    late = msgspec.structs.replace(ingest.ingest, time=before(hours=3), head=before(hours=40), left=None, speed=0.8)
    behind = msgspec.structs.replace(ingest, ingest=late)
    then = {"covered_to": before(hours=3), "head": before(hours=3), "seconds_left": None}
    assert at_rest(processes=(worker, behind), **then)[:2] == ("busy", "Catching up.")
    assert at_rest(processes=(worker,), covered_to=before(hours=3), seconds_left=None)[:2] == ("busy", "Catching up.")
    quiet = msgspec.structs.replace(ingest, ingest=msgspec.structs.replace(late, speed=0.0))
    assert at_rest(processes=(worker, quiet), **then)[0] == "good", "the relay is quiet, and that is no fault"


def test_what_is_read_out_does_not_change_each_second() -> None:
    page = Parsed(render(made(samples.status(troubles=("The lag grows by 5 messages/s.", "A gap.")))))
    read_out = [e for e in page.elements if "aria-live" in e.attributes or e.attributes.get("role") == "status"]
    assert [element.text for element in read_out] == ["catching up, 2 troubles"]
    assert made(samples.caught_up()).announced == "caught up"


def test_processes_are_alive_down_or_ended() -> None:
    again = samples.process("worker", "host-b", 980, started_at=before(minutes=3))
    rows = made(samples.status(processes=(*samples.status().processes, again))).processes
    assert (rows[2].state, rows[2].said) == ("replaced", "lost: last seen 4 min ago, and replaced")
    ended = samples.process("ingest", "c", 3, alive=False, ended_at=before(minutes=3))
    rows = made(samples.status(processes=(*samples.status().processes, ended))).processes
    assert [(row.state, row.said) for row in rows] == [
        ("alive", "alive, since 1 h 12 min"), ("alive", "alive, since 1 h 12 min"),
        ("down", "down: last seen 4 min ago"), ("ended", "ended 3 min ago"),
    ]  # fmt: skip


def test_coverage_is_told_in_words_too() -> None:
    coverage = made(samples.status()).coverage
    assert coverage.said == (
        "In Postgres: 17 h 41 min; In Kafka, not in Postgres yet: 1 h 7 min; At the relay, to be read: 5 h; "
        "Gap: not covered: 12 min; Not kept by the relay any more: 2 h"
    )
    assert [gap.said for gap in coverage.gaps] == ["Gap from 00:03:20 to 00:15:20: the relay left out 41,022 seqs"]
    assert coverage.blocks[-1].kind == "gap"  # nothing is drawn over it


# -- words and drawings


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0, "0 s"),
        (8.4, "8 s"),
        (320, "5 min 20 s"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert words.format_duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(None, "–"), (0, "0"), (2.5, "2.5"), (12.34, "12"), (1_234_567, "1,234,567"), (0.04, "0.0")]
)
def test_numbers(value: float | None, said: str) -> None:
    assert words.number(value) == said


def test_sizes_and_moments() -> None:
    assert words.size(117 << 20) == "117 MB"
    assert words.size(3 << 30) == "3.0 GB"
    assert words.size(512) == "512 bytes"
    assert words.clock(before(hours=1), NOW) == "13:03:20"
    assert words.clock(before(days=1), NOW) == "24 Nov 14:03"
    assert words.clock(before(days=400), NOW) == "21 Oct 2025"
    assert words.ago(NOW, NOW) == "now"


def test_a_line_is_interrupted_where_nothing_is_known() -> None:
    stroke, area = line([1.0, None, 2.0, 2.0], 2.0, 4)
    assert stroke.count("M") == 2
    assert area.count("Z") == 2
    assert stroke.endswith(f"L{WIDTH},1")
    assert line([], 1.0, SLOTS) == ("", "")


def test_a_short_stretch_can_be_seen_and_stays_inside() -> None:
    week = 7 * 86_400.0
    assert place_stretch(0, 1, 0, week) == ("0", "2")
    assert place_stretch(week - 1, week, 0, week) == (f"{WIDTH - 2}", "2")
    assert place_stretch(-50, week * 2, 0, week) == ("0", f"{WIDTH}")


def test_bars_and_ceilings() -> None:
    assert bar(0, 10) == "0"
    assert float(bar(1, 100_000)) > 1
    assert bar(10, 10) == "100"
    assert [ceiling([value]) for value in (0, 3, 5, 9, 11, 2_450)] == [1, 5, 5, 10, 20, 5_000]
    assert HEIGHT == 60


def test_the_history_forgets_what_is_older_than_all_of_it() -> None:
    past = History()
    for _ in range(SLOTS + 5):
        past.add(worker_figures())
    assert len(past.samples) == SLOTS
    assert past.modes() == [("paced", 0, SLOTS)]
    assert dt.timedelta(minutes=10).total_seconds() / 5 == SLOTS


def test_the_script_keeps_up_every_attribute_that_the_page_binds() -> None:
    pairs = " ".join(re.findall(r"bind\(\w+, '([^']+)'", read_file("page.html"))).split()
    bound = {pair.split("=")[0] for pair in pairs}
    kept = set(re.findall(r'"([\w-]+)"', read_file("page.js").split("new Set([")[1].split("])")[0]))
    assert bound == kept
