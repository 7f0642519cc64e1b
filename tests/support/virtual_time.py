"""An event loop whose clock jumps to the next timer: waits are exact, and take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Where nothing is ready it does not wait: the clock moves on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is its own. Nothing of another thread or process may be waited for in it."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def virtually(test: Callable[[Callable[[], float]], Awaitable[Any]]) -> None:
    """Run ``test`` to its end; it is given the clock."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(asyncio.wait_for(test(loop.time), 1e6))
    finally:
        loop.close()
