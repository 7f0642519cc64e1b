"""The script, measured from the client's start until its last message is in Postgres."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final
from urllib.parse import urlsplit

from benchmarks.figures import Figures, Measured, figures_of
from benchmarks.programs import PROJECT, running
from benchmarks.sampling import Sampler
from benchmarks.servers import connected
from benchmarks.stages import Site
from streams.kafka.topic import ensure_topic

#: Seconds until the worker is ready, and until all is stored.
_READY: Final = 120.0
_LIMIT: Final = 900.0
_TABLES: Final = """
    CREATE SCHEMA {0};
    CREATE TABLE {0}.records (
        did text COLLATE "C", collection text COLLATE "C", rkey text COLLATE "C", rev text COLLATE "C", cid text,
        record jsonb, seq bigint, time timestamptz, PRIMARY KEY (did, collection, rkey));
    CREATE TABLE {0}.stored (messages integer)"""


async def script(site: Site, frames: int) -> Figures:
    """Measure the script with the first frames of the workload."""
    settings = site.servers.settings(site.relay.url)
    topic, schema, dsn = settings.kafka_topic, settings.sink_schema, settings.database_dsn()
    await ensure_topic(settings)
    environment = {
        "PYTHONPATH": str(PROJECT), "SCRIPT_SERVERS": settings.bootstrap_servers(), "SCRIPT_TOPIC": topic,
        "SCRIPT_SCHEMA": schema, "DATABASE_URL": dsn,
    }  # fmt: skip
    address = urlsplit(site.relay.url)
    client_command = [sys.executable, "-m", "benchmarks.script.client", f"{address.scheme}://{address.netloc}/xrpc"]
    client_command += [settings.bootstrap_servers(), topic, str(frames)]
    command = [sys.executable, "-m", "faust", "-A", "benchmarks.script.app", "worker", "--without-web"]
    async with connected(dsn) as look:
        await look.execute(_TABLES.format(schema))
        async with running("script-worker", command, settings.local_dir, **environment) as worker:
            await worker.until("ready", _READY)
            async with running("script-client", client_command, settings.local_dir, **environment) as client:
                began = await client.until("plan", _LIMIT)
                roots = {"relay": site.relay.pid, "client": client.pid, "worker": worker.pid, **site.servers.pids()}
                async with Sampler(roots, apart=frozenset((look.get_server_pid(),))) as sampler:
                    await client.until("done", _LIMIT)
                    sent = int(client.messages["done"]["sent"])
                    while (stored := await look.fetchval(f"SELECT sum(messages) FROM {schema}.stored") or 0) < sent:
                        worker.check()
                        if time.monotonic() - began > _LIMIT:
                            sys.exit(f"The script has stored {stored:,} of {sent:,} messages: see its log.")
                        await asyncio.sleep(0.1)
                    seconds, usage = time.monotonic() - began, sampler.usage()
    await site.servers.forget(settings)
    return figures_of(Measured(sent, seconds, usage.cpu, usage.postgres, usage.rest, usage.peak))
