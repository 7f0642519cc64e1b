"""A schema that the sink filled, held against an oracle: every record, CID, rev, value, handle and account state.

It shares nothing with the pipeline but the names of the tables' columns.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import asyncpg

from streams.simulator.oracle import OracleAccount, State, differences

if TYPE_CHECKING:  # asyncpg's class is generic in its stubs only
    Connection = asyncpg.Connection[asyncpg.Record]


async def compare(connection: Connection, schema: str, expected: State) -> list[str]:
    """A sentence for each difference (at most about forty); an empty list says that all is exactly as it must be."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    async with connection.transaction():
        rows = connection.cursor(
            f"SELECT did, collection, rkey, cid, rev, record::text AS value FROM {schema}.records "  # noqa: S608
            "WHERE record IS NOT NULL",
            prefetch=5000,
        )
        async for row in rows:
            found[row["did"]][f"{row['collection']}/{row['rkey']}"] = {
                "cid": row["cid"], "rev": row["rev"], "value": json.loads(row["value"]),
            }  # fmt: skip
    actors = {row["did"]: row for row in await connection.fetch(f"SELECT * FROM {schema}.actors")}  # noqa: S608
    # A recording knows the records of active accounts only: of the others, deleted ones must have none.
    known = expected["records"]
    unknown = {did for did, account in expected["accounts"].items() if did not in known and account["hidden"]}
    problems = differences(known, {did: records for did, records in found.items() if did not in unknown})
    for did, account in expected["accounts"].items():
        problems.extend(_account_problems(did, account, actors.get(did)))
        if len(problems) > 40:
            break
    return problems


def _account_problems(did: str, wanted: OracleAccount, found: Any) -> list[str]:  # noqa: ANN401 (a row)
    if found is None:
        # An #identity without a handle, or a #sync of a repository that nothing is held of, leaves nothing to store.
        nothing = wanted["handle"] is None and wanted["active"] and wanted["status"] is None
        return [] if nothing else [f"{did}: the account is missing"]
    problems = []
    if wanted["handle"] is not None and found["handle"] != wanted["handle"]:
        problems.append(f"{did}: handle {found['handle']!r}, expected {wanted['handle']!r}")
    # None: no #account was ever sent, which means active.
    if (found["active"] is not False) != wanted["active"]:
        problems.append(f"{did}: active {found['active']}, expected {wanted['active']}")
    if found["status"] != wanted["status"]:
        problems.append(f"{did}: status {found['status']!r}, expected {wanted['status']!r}")
    return problems
