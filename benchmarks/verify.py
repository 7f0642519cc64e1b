"""Hold a schema against an oracle, in a process of its own: the memory that this takes is free again afterwards.

``python -m benchmarks.verify SCHEMA ORACLE``, with DATABASE_URL. It prints the differences as a line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path

from benchmarks.programs import result_of
from benchmarks.servers import connected
from streams.settings import Settings
from streams.simulator.compare import compare
from streams.simulator.oracle import load_oracle

#: Seconds that it may take, and besides for each event.
_LIMIT, _EACH = 300.0, 1e-3


async def check_rows(settings: Settings, oracle: Path, events: int) -> None:
    """End the benchmark if a schema does not hold exactly what the oracle says."""
    command = [sys.executable, "-m", "benchmarks.verify", settings.sink_schema, str(oracle)]
    limit = _LIMIT + _EACH * events
    found = await result_of("verify", command, settings.local_dir, limit, DATABASE_URL=settings.database_dsn())
    if found["problems"]:
        sys.exit(f"The rows are wrong, so their speed does not count: {found['problems'][0]}")


async def _problems(schema: str, oracle: Path) -> list[str]:
    async with connected(os.environ["DATABASE_URL"]) as connection:
        return await compare(connection, schema, load_oracle(oracle))


def main() -> None:
    """Run ``python -m benchmarks.verify``."""
    gc.disable()  # a million small objects that all stay
    print(json.dumps({"problems": asyncio.run(_problems(sys.argv[1], Path(sys.argv[2])))}))


if __name__ == "__main__":
    main()
