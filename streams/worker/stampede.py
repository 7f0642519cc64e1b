"""One run of a coroutine function for all concurrent callers: mode's ``stampede``, without its faults.

Faust starts its producer through it. In mode's own all callers wait for one future: cancelling one of them cancels that
future, and the run that then sets its result ends the worker (InvalidStateError); a run that fails is never told to
those who wait; one that is cancelled cancels them. Here the run is a task of its own: what comes of it goes to all who
wait, and the cancellation of a caller ends that caller alone.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from mode.utils.futures import StampedeWrapper

#: Mode's own; a test compares it to find out when this module is no longer needed.
MODES_OWN: Final = StampedeWrapper.__call__


class _Run:
    """A run that is under way, and the number of its callers."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.callers = 0


async def call_shared(wrapper: Any) -> Any:  # noqa: ANN401 (mode's wrapper, and what its function returns)
    """Return or raise what the wrapper's function does, from one run that all callers share.

    A run whose last caller is gone is cancelled.
    """
    run = wrapper.fut
    if run is None:
        run = wrapper.fut = _Run(asyncio.ensure_future(wrapper.fun(*wrapper.args, **wrapper.kwargs)))
        run.task.add_done_callback(lambda _: _forget(wrapper, run))
    run.callers += 1
    try:
        return await asyncio.shield(run.task)
    finally:
        run.callers -= 1
        if not run.callers and not run.task.done():
            _forget(wrapper, run)  # the next caller begins another run
            run.task.cancel()


def _forget(wrapper: Any, run: _Run) -> None:  # noqa: ANN401
    if wrapper.fut is run:
        wrapper.fut = None


def install() -> None:
    """Replace mode's ``stampede`` for every function that it decorates."""
    StampedeWrapper.__call__ = call_shared  # type: ignore[method-assign, assignment]
