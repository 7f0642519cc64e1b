"""Dead letters replayed, through the same merge as any slice.

A replay takes its letters out and puts what they hold in, in one transaction, while it holds the positions of all the
group's partitions: live workers wait for it for some milliseconds, as they would for one another, and find their
positions where they were. In ``sink_offsets`` a letter that was dead becomes applied or skipped; ``received`` stays.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Final

import asyncpg

from streams.errors import DatabaseError, SettingsError
from streams.maintenance.dead_letters.letter import Letter, LetterMessage, letter_of, unpack
from streams.maintenance.dead_letters.store import LetterFilter, partitions
from streams.messages import LetterKind
from streams.postgres.apply import BatchArguments, apply_batch
from streams.postgres.batch import Batch, BatchBuilder
from streams.postgres.database import Connection, Database, longer
from streams.postgres.queries import query
from streams.text import printable

#: Letters in one transaction: a payload has at most 256 KB, so 50 MB.
CHUNK: Final = 200


@dataclass
class Replayed:
    """The outcome of a replay. ``kept``: letters that cannot be replayed, by the reason why."""

    applied: int = 0
    skipped: int = 0
    dead: int = 0
    kept: Counter[str] = field(default_factory=Counter)

    @property
    def replayed(self) -> int:
        """Return how many letters were tried again."""
        return self.applied + self.skipped + self.dead

    def add(self, other: Replayed) -> None:
        """Count these too."""
        self.applied += other.applied
        self.skipped += other.skipped
        self.dead += other.dead
        self.kept += other.kept


class Replayer:
    """Replays letters for one group. ``keep``: which collections are stored; ``keep_in_topic``: sent (None: all)."""

    def __init__(
        self,
        database: Database,
        group: str,
        keep: Callable[[str], bool] | None = None,
        keep_in_topic: Callable[[str], bool] | None = None,
    ) -> None:
        self._database = database
        self._group = group
        self._builder = BatchBuilder(keep)
        self._keep_in_topic = keep_in_topic

    async def replay(self, which: LetterFilter, tell: Callable[[Replayed], None] = lambda _: None) -> Replayed:
        """Replay all that are meant, chunk by chunk, each in a transaction; ``tell`` hears of the sum after each.

        What is killed in the middle has lost and doubled nothing: the next call goes on. Raises SettingsError where the
        group has not read the topic, DatabaseError.
        """
        total = Replayed()
        for partition in await partitions(self._database, which):
            of_partition, after = replace(which, partition=partition), -1
            while True:
                last, done = await self._chunk(of_partition, after)
                if last is None:
                    break
                after = last
                total.add(done)
                tell(total)
        return total

    async def _chunk(self, which: LetterFilter, after: int) -> tuple[int | None, Replayed]:
        """Replay the next letters of a partition; returns the last one's offset (None: none) and the outcome."""
        failures: list[BaseException] = []

        async def call(connection: Connection) -> tuple[int | None, Replayed]:
            async with longer(connection, failures) as timeout, connection.transaction():
                return await self._replay(_Chunk(connection, which.topic, self._group, timeout), which, after)

        try:
            return await self._database.run(call, failures=failures)
        except asyncpg.PostgresError as error:
            raise DatabaseError(
                f"Postgres refuses the letters of {which.topic}/{which.partition} after offset {after} as a whole "
                f"({error.sqlstate}: {printable(str(error))})",
                "this is a fault of this program, please report it.",
            ) from error

    async def _replay(self, chunk: _Chunk, which: LetterFilter, after: int) -> tuple[int | None, Replayed]:
        assert which.partition is not None
        await chunk.lock(which.partition)
        letters = await chunk.letters(which, after, CHUNK)
        done = Replayed(kept=Counter(letter.obstacle for letter in letters if letter.obstacle is not None))
        able = [letter for letter in letters if letter.obstacle is None]
        if able:
            await chunk.take_out(able)
            messages = [letter for letter in able if letter.kind is LetterKind.MESSAGE]
            if messages:
                done.add(await self._messages(chunk, messages))
            for letter in able:
                if letter.kind is LetterKind.FRAME:
                    done.add(await self._frame(chunk, letter))
            await chunk.keep_age(able)
            await chunk.count(done)
        return (letters[-1].offset if letters else None), done

    async def _messages(self, chunk: _Chunk, letters: Sequence[Letter]) -> Replayed:
        """Apply messages as the slice that they would have been."""
        messages = [LetterMessage(letter.offset, (letter.did or "").encode(), letter.payload) for letter in letters]
        batch = self._builder.build(messages, time.time_ns() // 1000)
        applied, dead = await chunk.apply(batch, {letter.offset: letter.encoded for letter in letters})
        return Replayed(applied, len(letters) - applied - dead, dead)

    async def _frame(self, chunk: _Chunk, letter: Letter) -> Replayed:
        """Apply the events of one frame. It counts as one letter, dead for as long as one of its operations is."""
        unpacked = unpack(letter, self._keep_in_topic)
        batch = self._builder.build(unpacked.messages, time.time_ns() // 1000)
        bad = [*unpacked.bad, *(dead["reason"] for dead in batch.dead)]
        batch.dead = []
        applied, _ = await chunk.apply(batch, {letter.offset: letter.encoded})
        refused = await chunk.refusal(letter)
        if refused is not None:
            bad.append(refused)
        if bad and await chunk.put_back(letter, bad[0] if len(bad) == 1 else f"{bad[0]} (and {len(bad) - 1} more)"):
            return Replayed(dead=1)
        return Replayed(applied=1) if applied else Replayed(skipped=1)


class _Chunk:
    """The statements of one transaction; ``timeout`` is that of a merge."""

    def __init__(self, connection: Connection, topic: str, group: str, timeout: float | None) -> None:
        self._connection = connection
        self._timeout = timeout
        self._topic = topic
        self._group = group
        self._partition = -1
        self._position: asyncpg.Record

    async def lock(self, partition: int) -> None:
        """Hold all the group's positions: nobody writes rows of any account, wherever its events are.

        A frame's account has another partition than its letter, and its deletion must not race us.
        """
        rows = await self._connection.fetch(query("lock_positions"), self._topic, self._group)
        positions = {row["partition"]: row for row in rows}
        if partition not in positions:
            raise SettingsError(
                f"The group {self._group} has read nothing of {self._topic}/{partition}",
                "set SINK_GROUP to the group that fills this schema.",
            )
        self._partition, self._position = partition, positions[partition]

    async def letters(self, which: LetterFilter, after: int, limit: int) -> list[Letter]:
        rows = await self._connection.fetch(query("lock_letters"), *astuple(which), after, limit)
        return [letter_of(dict(row)) for row in rows]

    async def take_out(self, letters: Sequence[Letter]) -> None:
        offsets = [letter.offset for letter in letters]
        await self._connection.execute(query("delete_letters"), self._topic, self._partition, offsets)

    async def apply(self, batch: Batch, payloads: dict[int, str]) -> tuple[int, int]:
        """Apply a batch row by row, the position unchanged: versions applied, and letters written again."""
        rows, base = batch.grouped(), self._position["next_offset"]
        arguments = BatchArguments(self._topic, self._partition, self._group, base, base, rows, batch.extras())
        of_records = [payloads[offset] for offset in rows.columns.offsets] or None
        row = await apply_batch(self._connection, arguments, payloads=of_records, timeout=self._timeout)
        assert row is not None, "the position is locked"
        return row["batch_applied"], row["batch_dead"]

    async def keep_age(self, letters: Sequence[Letter]) -> None:
        """Give letters that are dead again the age that they had."""
        offsets, ages = [letter.offset for letter in letters], [letter.created_at for letter in letters]
        await self._connection.execute(query("keep_age_of_letters"), self._topic, self._partition, offsets, ages)

    async def refusal(self, letter: Letter) -> str | None:
        """Return why Postgres refused a row of the frame, where it did."""
        row = await self._connection.fetchrow(query("letter"), self._topic, self._partition, letter.offset)
        return None if row is None else str(row["reason"])

    async def put_back(self, letter: Letter, reason: str) -> bool:
        """Write the frame again, with another reason; returns False where the same one is held already."""
        await self._connection.execute(query("delete_letters"), self._topic, self._partition, [letter.offset])
        return bool(
            await self._connection.fetchval(
                query("put_back_letter"), self._topic, self._partition, letter.offset, letter.seq, reason,
                letter.payload, letter.kind,
            )
        )  # fmt: skip

    async def count(self, done: Replayed) -> None:
        """Move the replayed letters from `dead` to what they became. What ``apply_batch`` has counted is overwritten.

        A letter that another group of this schema had counted was skipped by this one: dead does not fall below zero.
        """
        applied = self._position["applied"] + done.applied
        dead = max(self._position["dead"] - done.applied - done.skipped, 0)
        await self._connection.execute(
            query("count_replayed"), self._topic, self._partition, self._group, applied, dead
        )
