"""Export a view to a Parquet file, in bounded memory, for pandas, polars, DuckDB, Spark.

    python examples/export_parquet.py --view posts --since 2026-01-01 --out posts.parquet
    python examples/export_parquet.py --view likes --out likes.parquet

Needs pyarrow: pip install -e '.[examples]'. Rows come through a server-side cursor, all of one moment, and go out in
row groups of limited size: a view that is larger than the memory is no matter. The file appears under its name when it
is whole. jsonb columns become JSON text, text arrays become lists, times are UTC with microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from streams.errors import StreamsError
from streams.postgres.session import reading
from streams.settings import Settings, load_settings

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError:
    sys.exit("This example needs pyarrow: pip install -e '.[examples]'")

#: A row group ends at so many rows or bytes: what is in memory at a time.
GROUP_ROWS: Final = 50_000
GROUP_BYTES: Final = 24 * 1024 * 1024
#: Rows fetched at a time. A record is at most 1 MB, most are 300 bytes.
FETCH_ROWS: Final = 100

#: Postgres' type -> Parquet's, and how the column is asked for. What is not here comes as text.
TYPES: Final[dict[str, tuple[Any, str]]] = {
    "text": (pa.string(), "{}"),
    "int8": (pa.int64(), "{}"),
    "int4": (pa.int32(), "{}"),
    "bool": (pa.bool_(), "{}"),
    "text[]": (pa.list_(pa.string()), "{}"),
    # In microseconds, because Python's datetime ends at the year 9999 and Postgres does not.
    "timestamptz": (pa.timestamp("us", tz="UTC"), "(extract(epoch FROM {}) * 1000000)::bigint"),
}
AS_TEXT: Final = (pa.string(), "{}::text")


@dataclass(frozen=True)
class Selection:
    """What is exported: a view, and the times between which the column ``by`` must be."""

    view: str
    by: str
    since: datetime | None
    until: datetime | None


async def export(settings: Settings, selection: Selection, out: Path) -> int:
    """Write the file. Returns the number of rows."""
    part = out.with_name(f"{out.name}.part")
    try:
        async with (
            reading(settings.database_dsn(), settings.sink_schema) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            columns = await columns_of(connection, selection.view)
            rows = connection.cursor(*query(selection, columns), prefetch=FETCH_ROWS)
            written = await write(part, pa.schema([(name, kind) for name, (kind, _) in columns.items()]), aiter(rows))
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return written


async def columns_of(connection: asyncpg.Connection[Any], view: str) -> dict[str, tuple[Any, str]]:
    """The view's columns: Parquet's type, and how each is asked for."""
    prepared = await connection.prepare(f'SELECT * FROM "{view}"')  # noqa: S608 (a name: `identifier` has seen it)
    return {column.name: TYPES.get(column.type.name, AS_TEXT) for column in prepared.get_attributes()}


def query(selection: Selection, columns: dict[str, tuple[Any, str]]) -> tuple[Any, ...]:
    """The statement and its arguments."""
    asked = ", ".join(how.format(f't."{name}"') for name, (_, how) in columns.items())
    bounds = [(sign, time) for sign, time in ((">=", selection.since), ("<", selection.until)) if time is not None]
    where = " AND ".join(f't."{selection.by}" {sign} ${n}' for n, (sign, _) in enumerate(bounds, 1)) or "true"
    return f'SELECT {asked} FROM "{selection.view}" AS t WHERE {where}', *(time for _, time in bounds)  # noqa: S608


async def write(path: Path, schema: Any, rows: AsyncIterator[asyncpg.Record]) -> int:  # noqa: ANN401 (pyarrow has no types)
    """Write rows, one row group after the other. Returns their number."""
    written = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        group: list[asyncpg.Record] = []
        size = 0
        async for row in rows:
            group.append(row)
            size += sum(map(weight, row.values()))
            if len(group) >= GROUP_ROWS or size >= GROUP_BYTES:
                writer.write_table(table(schema, group))
                written, size = written + len(group), 0
                group.clear()
        writer.write_table(table(schema, group))
    return written + len(group)


def weight(value: object) -> int:
    """About how many bytes a value takes."""
    return len(value) if isinstance(value, str) else sum(map(weight, value)) if isinstance(value, list) else 8


def table(schema: Any, rows: list[asyncpg.Record]) -> Any:  # noqa: ANN401
    """Rows as columns."""
    return pa.table([pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)], schema=schema)


def identifier(text: str) -> str:
    """An argument that stands in a query as a name."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid name of a view or a column")
    return text


def moment(text: str) -> datetime:
    """A date or time; UTC where it has no zone."""
    given = datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--view", type=identifier, required=True, help="posts, likes, follows, users, ... or a table")
    parser.add_argument("--since", type=moment, metavar="TIME", help="not older than this, 2026-01-31 or with a time")
    parser.add_argument("--until", type=moment, metavar="TIME", help="older than this")
    parser.add_argument(
        "--by", type=identifier, default="created_at", help="the column of --since and --until (created_at)"
    )
    parser.add_argument("--out", type=Path, required=True, help="the file; one of that name is replaced")
    arguments = parser.parse_args()
    try:
        selection = Selection(arguments.view, arguments.by, arguments.since, arguments.until)
        rows = asyncio.run(export(load_settings(), selection, arguments.out))
    except (StreamsError, asyncpg.PostgresError, OSError) as error:
        sys.exit(str(error))
    print(f"{rows:,} rows of {arguments.view} in {arguments.out}, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
