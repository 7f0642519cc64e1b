"""The swap: a rebuilt schema takes the live one's place, in one transaction, while workers go on.

A worker finds the schema by its name (``search_path``), so that after the swap its statements mean the new one. What
it has under way when the swap begins is waited for; what it begins meanwhile waits, and then finds the partition at
another position or under another group: it is fenced, and seeks anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from streams.errors import MismatchError
from streams.maintenance.rebuild.schema import both, copied
from streams.postgres.database import Connection, Database
from streams.postgres.queries import query
from streams.postgres.sql_text import literal, quoted
from streams.runtime.drills import RebuildPoint, crash_point

#: Names of a list that a sentence shows.
_SHOWN: Final = 5
#: The longest time for which workers wait for a swap that hangs: then its session is ended.
_IDLE: Final = "20s"


@dataclass(frozen=True, slots=True)
class Names:
    """The schemas and the groups of a swap; ``kept`` is what the live schema is called afterwards."""

    topic: str
    live: str
    group: str
    rebuilt: str
    rebuilt_group: str
    kept: str

    @property
    def note(self) -> str:
        """Return how the comment on the kept schema begins."""
        return f"{self.live} until {self.rebuilt} took its place on "


async def was_swapped(database: Database, names: Names) -> str | None:
    """Return the kept schema's comment, where this swap was made already. Raises MismatchError: a name is taken."""

    async def call(connection: Connection) -> str | None:
        kept = await connection.fetchrow(query("rebuild_there"), names.kept)
        rebuilt = await connection.fetchrow(query("rebuild_there"), names.rebuilt)
        assert kept is not None
        assert rebuilt is not None
        if not kept["there"]:
            return None
        comment = str(kept["comment"] or "")
        if comment.startswith(names.note) and not rebuilt["there"]:
            return comment
        raise MismatchError(f"The schema {names.kept} is there already", "give another --keep-as, or drop it.")

    return await database.run(call)


async def check_objects(database: Database, names: Names) -> None:
    """Refuse a live schema that is bound to from outside, or holds what would stay behind. Raises MismatchError."""
    await database.run(lambda connection: _check_objects(connection, names))


async def _check_objects(connection: Connection, names: Names) -> None:
    bound = await connection.fetch(both("dependents", names.live, names.rebuilt))
    if bound:
        raise MismatchError(
            f"What is outside the schema {names.live} is bound to its tables and would go on reading the old ones: "
            f"{_list(bound)}.",
            "Drop it, swap, and make it again.",
        )
    strangers = await connection.fetch(both("strangers", names.live, names.rebuilt))
    if strangers:
        raise MismatchError(
            f"In the schema {names.live} is what a rebuild does not make, and it would stay behind: "
            f"{_list(strangers)}.",
            "Move it to another schema, or drop it.",
        )


def _list(rows: list[asyncpg.Record]) -> str:
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return ", ".join(row["what"] for row in rows[:_SHOWN]) + more


async def lock_live(connection: Connection, names: Names) -> dict[int, int]:
    """Have the workers wait until the transaction's end; returns where each partition of the live schema stands."""
    await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE}'")
    await connection.execute(both("lock_live", names.live, names.rebuilt))
    rows = await connection.fetch(both("live_positions", names.live, names.rebuilt), names.topic, names.group)
    return {row["partition"]: row["next_offset"] for row in rows}


async def swap(connection: Connection, names: Names) -> None:
    """Swap the schemas, in the transaction in which ``lock_live`` was called; nobody writes to either meanwhile.

    Raises MismatchError, and then nothing has changed.
    """
    await connection.execute(query("lock_migrations"))
    await connection.execute(both("lock_rebuilt", names.live, names.rebuilt))
    await _check_positions(connection, names)
    await _check_objects(connection, names)
    await _carry(connection, names)
    for row in await connection.fetch(both("grants", names.live, names.rebuilt)):
        await connection.execute(row["statement"])

    live, rebuilt, kept = quoted(names.live), quoted(names.rebuilt), quoted(names.kept)
    both_groups = names.topic, names.rebuilt_group, names.group
    await connection.execute(both("rename_rebuilt_group", names.live, names.rebuilt), *both_groups)
    kept_group = group_of(names.kept)
    await connection.execute(both("rename_live_group", names.live, names.rebuilt), names.topic, names.group, kept_group)
    await connection.execute(f"ALTER TABLE {rebuilt}.rebuild_state SET SCHEMA {live}")
    await connection.execute(both("keep_rebuild_state", names.live, names.rebuilt), kept_group)
    await connection.execute(f"ALTER SCHEMA {live} RENAME TO {kept}")
    await connection.execute(f"ALTER SCHEMA {rebuilt} RENAME TO {live}")
    now = await connection.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"')")
    await connection.execute(f"COMMENT ON SCHEMA {kept} IS {literal(names.note + now)}")
    crash_point(RebuildPoint.BEFORE_SWAP_COMMIT)


def group_of(schema: str) -> str:
    """Return the sink group that fills a rebuilt schema, unless another is asked for."""
    return f"rebuild.{schema}"


async def _check_positions(connection: Connection, names: Names) -> None:
    """Refuse a rebuilt schema that is behind the live one, or of another topic. Raises MismatchError."""
    held = {r["partition"]: r for r in await _positions(connection, "live_positions", names, names.group)}
    ours = {r["partition"]: r for r in await _positions(connection, "rebuilt_positions", names, names.rebuilt_group)}
    for partition, row in held.items():
        mine = ours.get(partition)
        if mine is None or mine["next_offset"] < row["next_offset"]:
            raise MismatchError(
                f"{names.rebuilt} is not as far as {names.live} in partition {partition}",
                "rebuild again, which goes on.",
            )
        if mine["topic_id"] and row["topic_id"] and mine["topic_id"] != row["topic_id"]:
            raise MismatchError(
                f"The topic {names.topic} was re-created since {names.live} was filled: it cannot be replaced."
            )


async def _positions(connection: Connection, name: str, names: Names, group: str) -> list[asyncpg.Record]:
    return await connection.fetch(both(name, names.live, names.rebuilt), names.topic, group)


async def _carry(connection: Connection, names: Names) -> None:
    """Carry over what the topic cannot bring: older gaps, runs and dead letters, and the cursor's runs."""
    for table in ("gaps", "runs"):
        await copied(connection, table, names.live, names.rebuilt)
    columns = await connection.fetchval(both("seed_columns", names.live, names.rebuilt), "dead_letters")
    letters = both("carry_dead_letters", names.live, names.rebuilt).replace("{columns}", columns)
    await connection.execute(letters, names.topic)
    await connection.execute(both("carry_cursor_runs", names.live, names.rebuilt))
    await connection.execute(both("carry_pauses", names.live, names.rebuilt))


def differing(held: Mapping[int, int], ours: Mapping[int, int]) -> list[int]:
    """Return the partitions in which the rebuilt schema is further than the live one."""
    return sorted(p for p, offset in ours.items() if offset > held.get(p, 0))
