"""The second half of the script, a Faust app: ``python -m faust -A benchmarks.script.app worker``.

Its environment: SCRIPT_SERVERS, SCRIPT_TOPIC, DATABASE_URL and SCRIPT_SCHEMA.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import Any

import asyncpg
import faust

SCHEMA = os.environ["SCRIPT_SCHEMA"]
PUT = f"""
    INSERT INTO {SCHEMA}.records (did, collection, rkey, rev, cid, record, seq, time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (did, collection, rkey) DO UPDATE
    SET rev = EXCLUDED.rev, cid = EXCLUDED.cid, record = EXCLUDED.record, seq = EXCLUDED.seq, time = EXCLUDED.time
    WHERE records.rev < EXCLUDED.rev"""
DELETE = f"DELETE FROM {SCHEMA}.records WHERE did = $1 AND collection = $2 AND rkey = $3 AND rev <= $4"

app = faust.App(
    os.environ["SCRIPT_TOPIC"],
    broker="kafka://" + os.environ["SCRIPT_SERVERS"].replace(",", ";kafka://"),
    store="memory://",
    consumer_max_fetch_size=8 << 20,
)
events = app.topic(os.environ["SCRIPT_TOPIC"], value_serializer="json", key_serializer="raw")


@app.on_partitions_assigned.connect
async def _say_ready(*_: Any, **__: Any) -> None:  # noqa: ANN401 (Faust's signal)
    # Not by print, which Faust makes a log line of; behind what it has drawn.
    os.write(1, b'\n{"event": "ready"}\n')


@app.agent(events)
async def store(stream: Any) -> None:  # noqa: ANN401 (Faust is untyped here)
    """Write the messages, up to 1,000 at a time."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    async for batch in stream.take(1000, within=0.5):
        # The last operation of a key wins; keys in order, so that two agents do not wait for each other.
        last = {(event["did"], event["collection"], event["rkey"]): event for event in batch}
        puts = [_row(key, event) for key, event in sorted(last.items()) if event["cid"] is not None]
        deletes = [(*key, event["rev"]) for key, event in sorted(last.items()) if event["cid"] is None]
        async with connection.transaction():
            await connection.executemany(PUT, puts)
            await connection.executemany(DELETE, deletes)
            await connection.execute(f"INSERT INTO {SCHEMA}.stored (messages) VALUES ($1)", len(batch))


def _row(key: tuple[str, str, str], event: dict[str, Any]) -> tuple[Any, ...]:
    record = json.dumps(event["record"]).replace("\\u0000", "\\ufffd")
    return *key, event["rev"], event["cid"], record, event["seq"], dt.datetime.fromisoformat(event["time"])
