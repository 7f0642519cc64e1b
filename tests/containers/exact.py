"""Hold a database against what must be in it: ``python -m tests.containers.exact --pds state.json.gz``.

A command of its own, because it has to be in the network in which the database's port is published.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import asyncpg

from streams.simulator.compare import compare
from streams.simulator.oracle import State, load_oracle, load_pds_state

DSN = "postgresql://postgres:postgres@127.0.0.1:5432/atproto"


async def _differences(expected: State) -> list[str]:
    connection = await asyncpg.connect(DSN)
    try:
        return await compare(connection, "firehose", expected)
    finally:
        await connection.close()


def main() -> int:
    """Print each difference; return 1 where there is one."""
    parser = argparse.ArgumentParser()
    expected = parser.add_mutually_exclusive_group(required=True)
    expected.add_argument("--pds", type=Path, help="what the PDS of a recording said")
    expected.add_argument("--oracle", type=Path, help="what the generator of a relay wrote down")
    options = parser.parse_args()
    state = load_pds_state(options.pds) if options.pds else load_oracle(options.oracle)
    problems = asyncio.run(_differences(state))
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    raise SystemExit(main())
