"""A process's row in ``processes``, every two seconds, and the pause that it answers with.

Never a reason to fail or to wait: a database that is away, or whose schema is older or not there yet, is tried again
without a word, and the last known answer holds. It has a connection of its own, so that it waits for no transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable
from typing import Final, Literal

import asyncpg
import msgspec

from streams import __version__
from streams.errors import SettingsError, StreamsError
from streams.postgres.database import Database
from streams.postgres.processes import Pause, ProcessIdentity, beat, count_workers, last_beat
from streams.settings import Settings
from streams.status.process import BEAT_SECONDS, DOWN_AFTER, IngestState, WorkerState
from streams.text import printable

log = logging.getLogger(__name__)

#: Seconds that a beat may take before it is given up; the first one, for which the start waits; the last one.
TIMEOUT: Final = 10.0
FIRST_TIMEOUT: Final = 3.0
LAST_TIMEOUT: Final = 1.0


class Heartbeat:
    """A heartbeat while ``run`` runs. ``state`` is what it writes; ``on_pause`` is called at each change of the pause.

    ``on_workers``, where it is given, is called with each beat, with the number of live workers of the group.
    """

    def __init__(
        self,
        settings: Settings,
        kind: Literal["worker", "ingest"],
        state: Callable[[], WorkerState | IngestState],
        on_pause: Callable[[Pause | None], None],
        on_workers: Callable[[int], None] | None = None,
    ) -> None:
        self._state = state
        self._on_pause = on_pause
        self._on_workers = on_workers
        self._pause: Pause | None = None
        self._written = False
        self._me = ProcessIdentity(
            id=uuid.uuid4(), kind=kind, topic=settings.kafka_topic, group=settings.sink_group,
            host=socket.gethostname(), pid=os.getpid(), version=__version__,
        )  # fmt: skip
        self._database: Database | None = None
        try:
            self._database = Database(settings.database_dsn(), settings.sink_schema, 1, quiet=True)
        except SettingsError:
            log.debug("no database: nobody will see in `status` that this process runs")

    async def first(self) -> None:
        """Make the first beat: afterwards a pause is known, if the database is there."""
        await self._beat(FIRST_TIMEOUT)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self._beat(TIMEOUT)
            await asyncio.sleep(BEAT_SECONDS)

    async def end(self) -> None:
        """Write that the process ends in order, if the database answers at once."""
        database, self._database = self._database, None
        if database is None:
            return
        with contextlib.suppress(TimeoutError, StreamsError, asyncpg.PostgresError, OSError):
            async with asyncio.timeout(LAST_TIMEOUT):
                if self._written:
                    await last_beat(database, self._me.id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_TIMEOUT):
                await database.close()

    async def _beat(self, timeout: float) -> None:
        if self._database is None:
            return
        try:
            async with asyncio.timeout(timeout):
                pause = await beat(self._database, self._me, msgspec.json.encode(self._state()))
                if self._on_workers is not None:
                    workers = await count_workers(self._database, self._me.topic, self._me.group, DOWN_AFTER)
                    self._on_workers(workers)
        except Exception as error:
            log.debug("no heartbeat: %r", error)
            return
        self._written = True
        if pause != self._pause:
            self._pause = pause
            self._on_pause(pause)


def pause_line(pause: Pause | None, who: str) -> str:
    """Return what is logged when a pause begins or ends."""
    if pause is None:
        return f"The {who} goes on: the pause has ended."
    why = f" ({printable(pause.reason, 200)})" if pause.reason else ""
    return f"The {who} is paused by {printable(pause.asked_by)}{why}: `faust -A streams.agents resume` ends that."
