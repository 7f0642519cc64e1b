"""The development relay: a websocket server that speaks subscribeRepos as real relays do, on 127.0.0.1.

It serves recorded or generated frames and does wrong what is asked of it. It shares no code with the pipeline. The
command is ``python -m streams.simulator``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Self, TypeVar

from streams.errors import RelayError
from streams.simulator.admission import Admission
from streams.simulator.faults import Fault, Faults
from streams.simulator.manner import PATHS, Beyond, Manner, Order, Speech
from streams.simulator.recording import Frame, placed, read_frames
from streams.simulator.retained import FrameStore
from streams.simulator.subscription import Connection, Subscription

Source = FrameStore | Path | Iterable[bytes]
T = TypeVar("T")

_LIVE_TICK: Final = 0.05


def store_of(source: Source) -> FrameStore:
    """Return the frames of a recording's file, of raw frames in order, or a store as it is."""
    if isinstance(source, FrameStore):
        return source
    return FrameStore(placed(read_frames(source) if isinstance(source, Path) else source))


class DevRelay:
    """A relay over ``source``. It serves inside ``async with``.

    ``published``: how many of the frames are out at the start (all, if None); ``publish`` lets out more, ``append``
    adds new ones. ``first_index``: the oldest that is retained. ``cursor_inclusive``: a cursor's own frame is sent
    again. ``outdated_info``: a cursor below the window gets an #info frame first. ``live_buffer``: how many frames a
    client that had caught up may lag before it is closed as ConsumerTooSlow. ``manner``: what else differs from relay
    to relay.
    """

    def __init__(
        self,
        source: Source = (),
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        published: int | None = None,
        first_index: int = 0,
        cursor_inclusive: bool = False,
        outdated_info: bool = False,
        live_buffer: int = 10_000,
        faults: Iterable[Fault | str] = (),
        manner: Manner | None = None,
    ) -> None:
        self.store = store_of(source)
        self.host, self.port = host, port
        self.head_index = len(self.store) if published is None else min(published, len(self.store))
        self.first_index = first_index
        self.cursor_inclusive, self.outdated_info, self.live_buffer = cursor_inclusive, outdated_info, live_buffer
        self.faults, self.manner = Faults(faults), manner or Manner()
        self.admission = Admission(self.faults, negative_cursors=self.manner.negative_cursors)
        self.paths = {PATHS[Speech.REPOS], PATHS[self.manner.speech]}
        self._anew_from = 0
        self.connections: list[Connection] = []
        self.subscriptions: set[Subscription] = set()
        self.on_end: Callable[[Connection], None] | None = None
        self.loop: asyncio.AbstractEventLoop
        self.caught_up: asyncio.Event
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen. Raises RelayError if the port is taken."""
        self.loop, self.caught_up = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._server = await self.loop.create_server(lambda: Subscription(self), self.host, self.port, backlog=1024)
        except OSError as error:
            raise RelayError(
                f"The development relay cannot listen on {self.host}:{self.port}: {error.strerror}."
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections with 1001, and the port."""
        assert self._server is not None
        self._server.close()
        for subscription in list(self.subscriptions):
            subscription.close(1001, "going away")
        deadline = self.loop.time() + 1.0
        while self.subscriptions and self.loop.time() < deadline:  # noqa: ASYNC110 (once, at the end)
            await asyncio.sleep(0.01)
        for subscription in list(self.subscriptions):
            subscription.abort()

    # -- what a test or the command asks

    @property
    def url(self) -> str:
        """Return the address for a client."""
        return f"ws://{self.host}:{self.port}{PATHS[self.manner.speech]}"

    @property
    def head(self) -> int | None:
        """Return the seq of the last frame that is out, or None."""
        return self.store.seqs[self.head_index - 1] if self.head_index else None

    @property
    def oldest(self) -> int | None:
        """Return the seq of the oldest frame that is retained, or None."""
        return self.store.seqs[self.first_index] if self.first_index < self.head_index else None

    def append(self, frames: Iterable[bytes | Frame]) -> None:
        """Send new frames, live. Only a Frame that says so begins the relay's sequence anew, whatever the seqs are."""
        for frame in frames:
            self.store.add(frame if isinstance(frame, Frame) else next(placed([frame], self.store.last())))
        self.publish(len(self.store) - self.head_index)

    def publish(self, count: int) -> None:
        """Let out ``count`` more of the frames that the store already has."""
        self.head_index = min(len(self.store), self.head_index + count)
        for subscription in list(self.subscriptions):
            if subscription.backlog() > self.live_buffer:
                subscription.end_with_error("ConsumerTooSlow", "Stream consumer too slow")
            subscription.wake()

    def retain_from(self, seq: int) -> None:
        """Forget the frames below ``seq``."""
        self.first_index = self.store.index_from(seq, *self.window())

    def disconnect_all(self, code: int = 1012, reason: str = "restart") -> None:
        """Close every connection."""
        for subscription in list(self.subscriptions):
            subscription.close(code, reason)

    async def publish_live(self, rate: float) -> None:
        """Let out what is not out yet at ``rate`` frames a second, once a client has caught up."""
        await self.caught_up.wait()
        begun, done = self.loop.time(), 0
        while self.head_index < len(self.store):
            due = int((self.loop.time() - begun) * rate)
            self.publish(due - done)
            done = due
            await asyncio.sleep(_LIVE_TICK)

    # -- what a subscription asks

    def window(self) -> tuple[int, int]:
        """Return the indexes of what is retained and out, in the current sequence."""
        if self.manner.keep_old:
            return self.first_index, self.head_index
        for reset in self.store.resets:
            if reset > self.first_index:
                return self.first_index, min(reset, self.head_index)
        return self.first_index, self.head_index

    def future(self, cursor: int | None, connection: int) -> Beyond | None:
        """Return the answer to a cursor beyond the head; None where it is not beyond it, and no fault says so."""
        fault = self.faults.take("future_cursor", connection)
        if fault is not None:
            return Beyond.HTTP if fault.status else Beyond.ERROR
        low, high = self.window()
        beyond = cursor is not None and high > low and cursor > self.store.highest(low, high)
        return self.manner.beyond if beyond else None

    def judges_each(self) -> bool:
        """Return True if a replay must look at the seq of each frame, because they are out of order."""
        return self.manner.order is Order.SEQ and not self.store.ascends(*self.window())

    def place_of(self, cursor: int) -> int:
        """Return the index at which the replay for a cursor begins."""
        store, (low, high) = self.store, self.window()
        if self.cursor_inclusive:
            return store.index_from(cursor, low, high)
        if self.manner.order is Order.SEQ or store.ascends(low, high):
            return store.index_after(cursor, low, high)
        place = store.index_from(cursor, low, high)
        return place + (place < high and store.seqs[place] == cursor)

    def next_cut(self, index: int) -> int:
        """Return where a connection from ``index`` ends, because the sequence begins anew there (``cut_at_reset``)."""
        resets = self.store.resets if self.manner.cut_at_reset else ()
        return next((reset for reset in resets if reset >= index and reset > self._anew_from), len(self.store))

    def begin_anew(self, index: int) -> None:
        """Begin a new sequence, with the frame at ``index`` as its first. End every connection."""
        self._anew_from = index
        self.passed(index + 1)
        self.disconnect_all()

    def passed(self, index: int) -> None:
        """Note that a client was sent all before ``index``. Forget the old sequence where it was reset on the way."""
        for reset in () if self.manner.keep_old else self.store.resets:
            if self.first_index < reset < index:
                self.first_index = reset

    def new_connection(self) -> Connection:
        """Count a connection."""
        self.connections.append(Connection(len(self.connections) + 1, None))
        return self.connections[-1]


class RelayThread:
    """A relay in a thread of its own, for tests and commands that are not asyncio's: ``with RelayThread(relay): …``.

    Attributes of ``relay`` may be read from any thread; ``call`` runs what changes it.
    """

    def __init__(self, relay: DevRelay) -> None:
        self.relay = relay
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="relay", daemon=True)

    def __enter__(self) -> DevRelay:
        """Wait until it listens. Raises RelayError."""
        self._thread.start()
        self._started.result()
        return self.relay

    def __exit__(self, *_: object) -> None:
        """Stop the relay, and wait until it has stopped."""
        self.relay.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def call(self, action: Callable[[], T]) -> T:
        """Run ``action`` in the relay's thread: ``thread.call(lambda: relay.append(frames))``."""

        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self.relay.loop).result()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        try:
            async with self.relay:
                self._started.set_result(None)
                await self._stop.wait()
        except RelayError as error:
            self._started.set_exception(error)
