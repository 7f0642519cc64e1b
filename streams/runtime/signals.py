"""The request to stop: SIGTERM and Ctrl-C call a function in the event loop, and never kill, also after its end."""

from __future__ import annotations

import asyncio
import atexit
import signal
from collections.abc import Callable


def on_stop_signals(call: Callable[[], object]) -> None:
    """Call ``call`` in the running loop at each SIGTERM and SIGINT, until the process is gone.

    Not by the loop's own handlers: they go with the loop, and a signal between its end and the process' would kill. Nor
    do ours last: the interpreter puts its default in the place of every Python handler as it ends (CPython's
    ``_PySignal_Fini``), but leaves a signal ignored that is ignored.
    """
    loop = asyncio.get_running_loop()

    def asked(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
        atexit.register(signal.signal, number, signal.SIG_IGN)
