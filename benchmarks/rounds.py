"""One round of the benchmark: everything once, what is compared with each other one upon the other."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Final

from benchmarks import stack_sampler
from benchmarks.apply import apply_alone
from benchmarks.figures import ALL, RATE, Figures
from benchmarks.hops import shares
from benchmarks.programs import OURS, PROJECT, Version, result_of
from benchmarks.script.run import script
from benchmarks.stages import Site, end_to_end, ingest_alone, measure_whole, worker_alone
from benchmarks.summary import APPLY, BEFORE, END_TO_END, FLOOR, INGEST, SCRIPT, SDK, WORKER, Round
from benchmarks.workload import Workload, as_options
from streams.kafka.topic import ensure_topic

#: Seconds that a program which measures itself may take.
_LIMIT: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """Frames of the workload that are taken: by the SDK and the floor (``compared``), and by a script of one's own."""

    compared: int
    script: int


async def measure_round(site: Site, workload: Workload, sizes: Sizes, before: Version | None) -> Round:
    """Measure everything once. What is compared with each other follows one upon the other."""
    found: Round = {END_TO_END: await end_to_end(site, OURS)}
    for process, parts in (await hop_shares(site)).items():
        total = found[END_TO_END][f"cpu.{process}"]
        found[END_TO_END] |= {f"hop.{process}.{hop}": share * total for hop, share in parts.items()}
    if before is not None:
        found[END_TO_END + BEFORE] = await end_to_end(site, before)
    for version in (OURS,) if before is None else (OURS, before):
        name = "" if version is OURS else BEFORE
        found[INGEST + name], filled = await ingest_alone(site, version)
        found[WORKER + name] = await worker_alone(site, version, filled)
        if version is OURS:
            found[APPLY], applied = await apply_alone(site, filled)
            await site.servers.forget(applied)
        await site.servers.forget(filled)
    found[SDK] = await sdk_alone(site, workload, sizes.compared)
    found[SCRIPT] = await script(site, sizes.script)
    found[FLOOR] = await floor(site, workload, sizes.compared)
    return found


async def hop_shares(site: Site) -> dict[str, dict[str, float]]:
    """Return the hops' shares of the CPU of the ingest and of the worker, from one more run with a profiler in both."""
    profiled = replace(OURS, name="profiled", change=PROJECT / "benchmarks" / "hop_profiler")
    whole = await measure_whole(site, profiled)
    folder, ended = site.servers.folder / stack_sampler.FOLDER, whole.began + whole.seconds
    return {
        name: shares(stack_sampler.read_snapshots(folder / f"{name}.jsonl"), whole.began, ended)
        for name in ("ingest", "worker")
    }


async def sdk_alone(site: Site, workload: Workload, frames: int) -> Figures:
    """Measure the SDK decoding; its rate is that of one core that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.sdk", *as_options(workload, frames)]
    found = await result_of("sdk", command, site.servers.folder, _LIMIT)
    return {RATE: found["events"] / found["cpu"], ALL: found["cpu"] / found["events"] * 1e6}


async def floor(site: Site, workload: Workload, frames: int) -> Figures:
    """Measure the pieces of the floor, and their sum."""
    settings = site.servers.settings(site.relay.url, kafka_partitions=1)
    await ensure_topic(settings)
    pids = site.servers.pids()
    command = [
        sys.executable, "-m", "benchmarks.floor", *as_options(workload, frames), "--topic", settings.kafka_topic,
        "--bootstrap-servers", settings.bootstrap_servers(), "--dsn", settings.database_dsn(),
        "--kafka-pid", str(pids["kafka"]), "--postgres-pid", str(pids["postgres"]),
    ]  # fmt: skip
    found = await result_of("floor", command, site.servers.folder, _LIMIT)
    await site.servers.forget(settings)
    pieces: dict[str, float] = found["pieces"]
    return {**{f"floor.{name}": each for name, each in pieces.items()}, ALL: sum(pieces.values())}
