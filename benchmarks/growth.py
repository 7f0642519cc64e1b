"""The cost of a row as the tables grow: ``python -m benchmarks.growth --rows 30000000``.

It fills a Postgres of its own, on the server, with rows of two million accounts, and stops at 0.1, 1, 3, 10 and 30
million rows. At each it applies batches of 4,000 new rows of random accounts, in turns in two states: directly after a
checkpoint, when the first touch of each page writes its image to the log; and between checkpoints, when every page was
touched before. The second is made by switching the images off: nothing else differs. Autovacuum does not run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

from benchmarks.growth_rows import FIRST_MEASURED, fill_statement, messages
from benchmarks.growth_table import AFTER, BETWEEN, Cost, sizes_up_to, table
from benchmarks.procfs import PROC
from benchmarks.servers import alone_in
from streams.local.postgres import Postgres
from streams.postgres.apply import BatchArguments, apply_batch
from streams.postgres.batch import BatchBuilder
from streams.postgres.database import Connection, Database
from streams.postgres.migrate import migrate_schema
from streams.settings import load_settings
from streams.sink_postgres import PostgresSink

SCHEMA: Final = "growth"
#: Rows of a batch, batches of one measurement, and measurements of each state at each size.
BATCH: Final = 4000
BATCHES: Final = 3
TURNS: Final = 3
#: Rows that one statement fills.
_CHUNK: Final = 500_000
#: Bytes of disk that a row needs, and besides: the log, and room for the server.
_DISK_EACH, _DISK = 700, 12 << 30
#: Seconds that a statement may take.
_SLOW: Final = 7200.0
_TOPIC: Final = "growth"
#: Far more than any rev of the rows.
_NOW_US: Final = FIRST_MEASURED + (1 << 50)

#: What Postgres counts that a batch may change.
_COUNTERS: Final = """
    SELECT pg_current_wal_insert_lsn() - '0/0' AS wal, (SELECT wal_fpi FROM pg_stat_wal) AS images,
           (SELECT sum(reads) FROM pg_stat_io WHERE backend_type = 'client backend') AS reads"""


class Growth:
    """The table and its measurements, on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pid = connection.get_server_pid()
        self._builder = BatchBuilder()
        self._random = Random(1)
        self._offset = 0
        self.rows = 0

    async def fill(self, rows: int) -> None:
        """Fill the table up to so many rows."""
        while self.rows < rows:
            until = min(rows, self.rows + _CHUNK)
            await self._connection.execute(fill_statement(self.rows, until), timeout=_SLOW)
            self.rows = until
        await self._connection.execute("VACUUM (ANALYZE) records", timeout=_SLOW)

    async def measure(self) -> dict[str, Cost]:
        """Measure both states in turns; return the median cost of each."""
        found: dict[str, list[Cost]] = {AFTER: [], BETWEEN: []}
        for _ in range(TURNS):
            for state, costs in found.items():
                await self._prepare(state)
                batches = [self._batch() for _ in range(BATCHES)]
                costs.append(await self._apply(batches))
        return {state: Cost(*map(median, zip(*costs, strict=True))) for state, costs in found.items()}

    async def _prepare(self, state: str) -> None:
        images = "on" if state == AFTER else "off"
        await self._connection.execute(f"ALTER SYSTEM SET full_page_writes = {images}")
        await self._connection.execute("SELECT pg_reload_conf()")
        while await self._connection.fetchval("SHOW full_page_writes") != images:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await self._connection.execute("CHECKPOINT", timeout=_SLOW)

    def _batch(self) -> BatchArguments:
        """Return the next batch, ready to be applied."""
        made = self._builder.build(messages(self._random, self._offset, BATCH), _NOW_US)
        base, self._offset = self._offset, self._offset + BATCH
        return BatchArguments(
            _TOPIC, 0, _TOPIC, base, self._offset, made.grouped(expect_new=True), made.extras(), made.received,
            made.topic_id, made.watermark,
        )  # fmt: skip

    async def _apply(self, batches: Sequence[BatchArguments]) -> Cost:
        before, began = await self._counters(), self._seconds()
        applied = 0
        for batch in batches:
            row = await apply_batch(self._connection, batch, timeout=_SLOW)
            assert row is not None
            applied += row["batch_applied"]
        seconds, after = self._seconds() - began, await self._counters()
        self.rows += applied
        wal, images, reads = (int(after[name] - before[name]) for name in ("wal", "images", "reads"))
        return Cost(seconds / applied * 1e6, wal / applied, images / applied * 1000, reads / applied * 1000)

    async def _counters(self) -> Any:  # noqa: ANN401 (a row)
        await self._connection.execute("SELECT pg_stat_force_next_flush()")
        await self._connection.execute("SELECT pg_stat_clear_snapshot()")
        return await self._connection.fetchrow(_COUNTERS)

    def _seconds(self) -> float:
        """Return the CPU seconds of our backend, to the nanosecond."""
        return int((PROC / str(self._pid) / "schedstat").read_text().split()[0]) / 1e9


async def grow(dsn: str, rows: int) -> dict[int, dict[str, Cost]]:
    """Return the costs at each size."""
    database = Database(dsn, SCHEMA, 1)
    try:
        await migrate_schema(database)
        await PostgresSink(database, topic=_TOPIC, group=_TOPIC).positions({0}, {0: 0})

        async def call(connection: Connection) -> dict[int, dict[str, Cost]]:
            await connection.execute("ALTER SYSTEM SET autovacuum = off")
            growth = Growth(connection)
            found = {}
            for size in sizes_up_to(rows):
                await growth.fill(max(size - 2 * TURNS * BATCHES * BATCH, growth.rows))
                found[growth.rows] = await growth.measure()
                print(table(found).splitlines()[-1], flush=True)
            return found

        return await database.run(call)
    finally:
        await database.close()


def _grow_in(data: Path, rows: int) -> dict[int, dict[str, Cost]]:
    """Return the costs at each size, in a Postgres of a folder that is removed afterwards."""
    server = Postgres(data, data)
    server.stop()
    shutil.rmtree(data, ignore_errors=True)  # of a run that was killed
    try:
        server.start()
        return asyncio.run(grow(server.dsn, rows))
    finally:
        server.stop()
        shutil.rmtree(data, ignore_errors=True)


def main() -> None:
    """Run ``python -m benchmarks.growth``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    folder = load_settings().local_dir.resolve() / "growth"
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows at the end (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the costs there, too")
    options = parser.parse_args()
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = _DISK + _DISK_EACH * options.rows, shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(
            f"{options.rows:,} rows need about {needed / 1e9:.0f} GB in {folder}, and {free / 1e9:.0f} GB are free."
        )
    with alone_in(folder):
        found = _grow_in(folder / "data", options.rows)
    print("\n" + table(found))
    if options.json is not None:
        options.json.write_text(
            json.dumps(
                {size: {state: cost._asdict() for state, cost in costs.items()} for size, costs in found.items()},
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
