"""What survives the decoders of all that the fuzzer sends is written to Postgres without a slice refused as a whole."""

from __future__ import annotations

from tests.fuzz import rows

MESSAGES = 2000


async def test_hostile_rows_are_written_or_dead_and_every_view_can_be_read(dsn: str) -> None:
    result = await rows.write(dsn, "fuzz", MESSAGES, seed=1)
    assert result.messages == MESSAGES
    # The sample has all that it is about: rows, dead letters of the decoder and of Postgres itself, views over them.
    assert result.applied > MESSAGES // 5 and result.dead > MESSAGES // 5
    assert result.refused > 0
    assert result.records > 100 and result.views > 20
