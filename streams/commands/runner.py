"""How a command runs: settings in, one sentence and an exit code out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from streams.errors import DatabaseError, HeldError, StreamsError
from streams.kafka.groups import running_workers
from streams.postgres.database import Database
from streams.postgres.migrate import check_schema
from streams.runtime.logs import set_up_logging
from streams.runtime.printing import print_anywhere
from streams.settings import Settings, load_settings
from streams.text import printable


def run_command(main: Callable[[Settings], Coroutine[Any, Any, int | None]]) -> None:
    """Call it with the settings and exit with what it returns; a StreamsError is its sentence and its code.

    So is what ``Database.run`` leaves to its caller, a value that Postgres refuses, where no caller knows better.
    """
    print_anywhere()
    try:
        settings = load_settings()
        set_up_logging(settings)
        code = asyncio.run(main(settings))
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    except asyncpg.PostgresError as error:
        sys.stderr.write(
            f"Postgres refuses a value ({error.sqlstate}: {printable(str(error), 300)}): see what it names.\n"
        )
        code = DatabaseError.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database, checked to hold our schema. Raises DatabaseError, MismatchError, SettingsError."""
    database = Database(settings.database_dsn(), settings.sink_schema)
    try:
        await database.start()
        await check_schema(database)
        yield database
    finally:
        await database.close()


async def refuse_while_workers_run(settings: Settings, *, force: bool, why: str) -> None:
    """Refuse to go on while workers of our group run, unless forced. Raises HeldError, BrokerError."""
    if force:
        return
    workers = await running_workers(settings)
    if workers:
        raise HeldError(
            f"{len(workers)} worker{'s' if len(workers) > 1 else ''} of {settings.sink_group} run (on "
            f"{', '.join(sorted(set(workers)))}), and {why}",
            "stop them first (a killed one counts for 10 s), or give --force.",
        )
