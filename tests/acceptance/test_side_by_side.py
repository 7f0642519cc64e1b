"""A worker of the version before beside one of now: an upgrade, worker by worker, changes no row."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.acceptance.commands import WORKER, Command, free_port
from tests.acceptance.conftest import Traffic
from tests.acceptance.deployment import STEADY, Deployment
from tests.acceptance.test_workers import received_by, stopped, until_shared
from tests.mutants.catalogue import PROJECT

#: The last commit of version 0.1.0.
OLD = "92f85a15480e45bb91ffed28870a30cda69bf6d4"


@pytest.fixture(scope="module")
def old_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of version 0.1.0, from this repository's history."""
    archive = subprocess.run(  # in a container of CI the folder belongs to another user
        ["git", "-c", f"safe.directory={PROJECT}", "archive", "--format=tar", OLD, "streams"],
        cwd=PROJECT, capture_output=True, check=False,
    )  # fmt: skip
    assert archive.returncode == 0, (
        f"commit {OLD[:7]} (version 0.1.0) is not in this clone: fetch the whole history (git fetch --unshallow)\n"
        f"{archive.stderr.decode()}"
    )
    folder = tmp_path_factory.mktemp("version-0.1.0")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def old_worker(deployment: Deployment, sources: Path, worker_id: str, **settings: str) -> Command:
    """Start a worker of version 0.1.0: its command is Faust's own."""
    own = {"PYTHONPATH": str(sources), "WORKER_ID": worker_id, "WORKER_WEB_PORT": str(free_port())}
    arguments = [sys.executable, "-m", "faust", "-A", "streams.agents", *WORKER[3:]]
    command = Command(
        f"old{len(deployment.commands)}", arguments, {**deployment.environment, **settings, **own}, deployment.folder,
        start_new_session=True,
    )  # fmt: skip
    deployment.commands.append(command)
    return command


async def migrations_of(deployment: Deployment) -> list[int]:
    """The migrations that the schema has."""
    return sorted(row["version"] for row in await deployment.table("atproto_streams_migrations"))


async def test_an_old_and_a_new_worker_share_the_partitions(
    deployment: Deployment, old_sources: Path, some_traffic: Traffic
) -> None:
    old = old_worker(deployment, old_sources, "0", **STEADY)
    await until_shared(deployment, 1)
    assert await migrations_of(deployment) == [1, 2, 3, 4, 5, 6]
    ingest = deployment.ingest(some_traffic.relay)
    # The old worker is in the middle of the topic when the new one brings the schema forward under it.
    await deployment.until_received(some_traffic.events // 20)
    new = deployment.worker(WORKER_ID="1", **STEADY)
    await until_shared(deployment, 2)
    assert max(await migrations_of(deployment)) > 6
    assert await deployment.received() < some_traffic.events, "the old worker was done before the new one came"
    await deployment.until_done(ingest)
    counts = await deployment.check(some_traffic.oracle, some_traffic.last_seq)
    assert counts["received"] == some_traffic.events
    for worker in await stopped([old, new]):
        assert received_by(worker), worker.tail()
    assert "Traceback" not in old.output + new.output


async def test_an_old_worker_cannot_start_again_on_the_newer_schema(
    deployment: Deployment, old_sources: Path, some_traffic: Traffic
) -> None:
    new = deployment.worker(WORKER_ID="1")
    await until_shared(deployment, 1)
    old = old_worker(deployment, old_sources, "0")
    assert await old.ended() == 6, old.tail()
    assert "this program knows 6" in old.output
    ingest = deployment.ingest(some_traffic.relay)
    await deployment.until_done(ingest)
    await deployment.check(some_traffic.oracle, some_traffic.last_seq)
    assert new.running
    await stopped([new])
