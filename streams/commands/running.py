"""How a command runs: settings in, one sentence and an exit code out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from streams.errors import StreamsError
from streams.ops.logs import set_up_logging
from streams.postgres.database import Database
from streams.settings import Settings, load_settings


def run_command(main: Callable[[Settings], Awaitable[int | None]]) -> None:
    """Call it with the settings and exit with what it returns; a StreamsError is its sentence and its code."""
    try:
        settings = load_settings()
        set_up_logging(settings)
        code = asyncio.run(_main(main, settings))
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)


async def _main(main: Callable[[Settings], Awaitable[int | None]], settings: Settings) -> int | None:
    return await main(settings)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of the settings, checked to hold our schema. Raises DatabaseError, MismatchError, SettingsError."""
    database = Database(settings.database_dsn(), settings.sink_schema)
    try:
        await database.start()
        await database.check()
        yield database
    finally:
        await database.close()
