"""One run for all who ask at once; whoever is cancelled or fails, each caller gets what is theirs."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mode.utils.futures import StampedeWrapper

from streams.worker.app import register_transport
from streams.worker.stampede import MODES_OWN, call_shared
from tests.support.patience import PATIENCE


class Door:
    """A function that goes on when it is told to, and what came of its runs."""

    def __init__(self, outcome: BaseException | str = "done") -> None:
        self.open = asyncio.Event()
        self.outcome = outcome
        self.runs = self.cancelled = 0

    async def __call__(self) -> str:
        self.runs += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


async def _callers(door: Door, count: int, call: Any = call_shared) -> tuple[Any, list[asyncio.Task[Any]]]:
    wrapper: Any = StampedeWrapper(door)
    tasks = [asyncio.create_task(call(wrapper)) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)  # all wait now
    return wrapper, tasks


async def _come_of(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_run_gives_all_its_result() -> None:
    door = Door()
    wrapper, tasks = await _callers(door, 3)
    door.open.set()
    assert await _come_of(tasks) == ["done"] * 3
    assert door.runs == 1
    assert await call_shared(wrapper) == "done"
    assert door.runs == 2, "what is over is not remembered"


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_a_caller_that_is_cancelled_ends_alone(victim: int) -> None:
    door = Door()
    _, tasks = await _callers(door, 3)
    tasks[victim].cancel()
    await asyncio.sleep(0)
    door.open.set()
    found = await _come_of(tasks)
    assert isinstance(found.pop(victim), asyncio.CancelledError)
    assert found == ["done"] * 2
    assert door.cancelled == 0


@pytest.mark.parametrize("error", [ValueError("no"), KeyError(1), asyncio.CancelledError()])
async def test_what_it_raises_is_raised_to_all(error: BaseException) -> None:
    door = Door(error)
    _, tasks = await _callers(door, 3)
    door.open.set()
    assert [type(each) for each in await _come_of(tasks)] == [type(error)] * 3


async def test_a_run_that_nobody_waits_for_is_cancelled_and_the_next_is_another() -> None:
    door = Door()
    wrapper, tasks = await _callers(door, 2)
    for task in tasks:
        task.cancel()
    late = asyncio.create_task(call_shared(wrapper))
    door.open.set()
    found = await _come_of([*tasks, late])
    assert found[2] == "done"
    assert [type(each) for each in found[:2]] == [asyncio.CancelledError] * 2


@given(
    moves=st.lists(st.tuples(st.sampled_from(["call", "cancel", "pass"]), st.integers(0, 5)), max_size=25),
    fails=st.booleans(),
)
async def test_any_order_of_calls_and_cancellations(moves: list[tuple[str, int]], fails: bool) -> None:
    door = Door(ValueError("no") if fails else "done")
    wrapper: Any = StampedeWrapper(door)
    tasks: list[asyncio.Task[Any]] = []
    for move, number in moves:
        if move == "call":
            tasks.append(asyncio.create_task(call_shared(wrapper)))
        elif move == "cancel" and number < len(tasks):
            tasks[number].cancel()
        else:
            await asyncio.sleep(0)
    cancelled = [task.cancelling() > 0 for task in tasks]
    door.open.set()
    for found, ended in zip(await _come_of(tasks), cancelled, strict=True):
        if ended:
            assert isinstance(found, asyncio.CancelledError)
        else:
            assert isinstance(found, ValueError) if fails else found == "done"
    assert wrapper.fut is None


async def test_fausts_own_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The crash of a campaign: a topic is declared for two, and the second is cancelled by a rebalance."""
    register_transport()
    door, topic = Door(), faust.App("stampede", broker="kafka://127.0.0.1:9").topic("a-changelog")
    monkeypatch.setattr(topic, "declare", door)
    tasks = [asyncio.create_task(topic.maybe_declare()) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    door.open.set()
    assert [type(each) for each in await _come_of(tasks)] == [type(None), asyncio.CancelledError]


async def test_modes_own_still_needs_it() -> None:
    """If this fails, mode has mended its stampede: streams/worker/stampede.py can go."""
    door = Door()
    _, tasks = await _callers(door, 2, MODES_OWN)
    tasks[1].cancel()
    await asyncio.sleep(0)
    door.open.set()
    [first, _] = await _come_of(tasks)
    assert isinstance(first, asyncio.InvalidStateError)
