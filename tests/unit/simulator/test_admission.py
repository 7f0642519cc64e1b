"""Who may connect to the development relay, and what the others are told."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest

from streams.simulator.admission import Admission, Answer, Caller
from streams.simulator.faults import Faults
from streams.simulator.manner import PATH

WALL = 1_790_000_000.0


class Door:
    """An admission with a clock."""

    def __init__(self, *faults: str, negative_cursors: bool = False) -> None:
        self.admission = Admission(Faults(faults), negative_cursors=negative_cursors)
        self.callers = 0

    def call(
        self, query: str = "cursor=5", now: float = 0.0, opened: int = 0, address: str = "a"
    ) -> Answer | int | None:
        self.callers += 1
        return self.admission.judge(Caller(self.callers, address, PATH, query, opened, now, WALL + now))

    def refused(self, query: str = "cursor=5", now: float = 0.0, opened: int = 0) -> Answer:
        answer = self.call(query, now, opened)
        assert isinstance(answer, Answer)
        return answer


@pytest.mark.parametrize(
    ("query", "cursor"), [("", None), ("cursor=", None), ("cursor=0", 0), ("cursor=7", 7), ("x=1&cursor=8", 8)]
)
def test_a_cursor_is_a_number_or_none(query: str, cursor: int | None) -> None:
    assert Door().call(query) == cursor


@pytest.mark.parametrize("text", ["-1", "abc", "1.5", "--1", "-", "1e3"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    assert Door().refused(f"cursor={text}").status == 400


@pytest.mark.parametrize("text", ["-1", "-5000000000"])
def test_a_negative_cursor_may_be_the_beginning(text: str) -> None:
    assert Door(negative_cursors=True).call(f"cursor={text}") == 0


def test_a_limit_lets_in_so_many_in_so_many_seconds_of_each_address() -> None:
    door = Door("limit:count=2,seconds=30")
    assert [door.call(now=now) for now in (0.0, 10.0)] == [5, 5]
    answer = door.refused(now=12.5)
    assert (answer.status, answer.headers) == (429, (("Retry-After", "18"),))
    assert door.call(now=12.5, address="b") == 5
    assert door.call(now=30.0) == 5
    assert door.refused(now=30.1).headers == (("Retry-After", "10"),)


def test_retry_after_may_be_a_date_or_missing() -> None:
    door = Door("limit:count=1,seconds=7,retry=date")
    door.call()
    [(name, text)] = door.refused(now=2.0).headers
    assert name == "Retry-After"
    assert parsedate_to_datetime(text).timestamp() == WALL + 2 + 5
    door = Door("limit:count=1,retry=none")
    door.call()
    assert door.refused(now=29.9).headers == ()
    assert door.call(now=30.0) == 5


def test_a_refusal_may_say_when_to_come_again() -> None:
    door = Door(
        "refuse:status=503,retry=seconds,seconds=9", "refuse:status=429", "refuse", "refuse:status=429,retry=none"
    )
    assert [(a.status, a.headers) for a in (door.refused() for _ in range(4))] == [
        (503, (("Retry-After", "9"),)), (429, (("Retry-After", "1"),)), (503, ()), (429, ()),
    ]  # fmt: skip
    assert door.call() == 5


def test_one_connection_of_an_address_at_a_time() -> None:
    door = Door("single")
    assert door.call() == 5
    assert [door.refused(opened=1).status for _ in range(3)] == [429, 429, 429]
    assert door.call() == 5
    assert Door("single:status=403").refused(opened=2).status == 403


def test_cursors_that_are_refused() -> None:
    door = Door("refuse_cursor:seq=100")
    assert [door.refused(f"cursor={cursor}").status for cursor in (0, 99)] == [400, 400]
    assert [door.call(f"cursor={cursor}") for cursor in (100, 101)] == [100, 101]
    assert door.call("") is None
    assert Door("refuse_cursor:status=410").refused("cursor=100").status == 410


def test_a_redirect_loses_the_cursor_or_keeps_it_and_is_no_circle() -> None:
    for fault, cursor in (("redirect", None), ("redirect:keep=1,status=307", 5)):
        door = Door(fault)
        answer = door.refused()
        [(name, where)] = answer.headers
        assert (name, urlsplit(where).path) == ("Location", PATH)
        assert door.call(urlsplit(where).query) == cursor
        assert door.call("") is None
