"""docker-compose.yml is run, not read: a real Docker engine and a real Docker Compose, from nothing to exact rows.

The images that the files name are stood in for (tests/containers): no registry is asked. LONG=1 adds what takes long.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from streams.errors import StreamsError
from streams.simulator.oracle import load_oracle
from tests.acceptance.commands import Command
from tests.containers import engine as engines
from tests.containers import images
from tests.containers.engine import Engine
from tests.containers.project import WORKER, Project

PROJECT: Final = Path(__file__).parents[2]
PDS: Final = PROJECT / "tests" / "fixtures" / "pds"
LAST_SEQ: Final = "781"
#: As fast as it goes; the relay is at its head when it has said nothing for two seconds.
FAST: Final = {"BACKFILL_PROFILE": "unlimited", "INGEST_IDLE_SECONDS": 2}
#: So slow that a restart finds work to interrupt.
STEADY: Final = {
    "BACKFILL_BATCH_SIZE": 30, "BACKFILL_BATCH_DELAY_MS": 200, "BACKFILL_USE_IDLE": "false", "INGEST_IDLE_SECONDS": 2,
}  # fmt: skip
SERVICES: Final = ("kafka", "db", WORKER)
CLUSTER: Final = ("docker-compose.yml", "docker-compose.cluster.yml")
long = pytest.mark.skipif(not os.environ.get("LONG"), reason="takes minutes: LONG=1 runs it")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A Docker engine with the images. Where it cannot be had the tests are skipped, but not in CI."""
    missing = engines.missing()
    if missing:
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="atproto-streams-engine-") as folder:
        try:
            started = Engine(Path(folder)).__enter__()
        except StreamsError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        try:
            images.build_all(started)
            yield started
        finally:
            started.__exit__()


@pytest.fixture
def project(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A clone of its own; its containers and volumes end with the test."""
    folder = tmp_path / re.sub(r"\W+", "-", request.node.name.lower())[:40]
    folder.mkdir()
    made = Project(engine, folder, *getattr(request, "param", ()))
    yield made
    made.compose("down", "--volumes", "--timeout", "0", check=False)


@pytest.fixture
def relays(engine: Engine, tmp_path: Path) -> Iterator[Relays]:
    """Development relays where containers reach them: at the engine's bridge."""
    made = Relays(engine, tmp_path)
    yield made
    made.close()


class Relays:
    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.commands: list[Command] = []

    async def serving(self, *arguments: str) -> str:
        """The address of a relay that serves this."""
        where = ["--host", engines.BRIDGE, "--port", "2480"]
        command = [sys.executable, "-m", "streams.simulator", *where, *arguments]
        self.commands.append(Command("relay", self.engine.inside(command), {}, self.folder))
        found = await self.commands[-1].line(r'"url": "(\S+)"', 300.0)
        return found[1]

    async def generated(self, events: int) -> tuple[str, Path]:
        """The address of a relay with generated traffic, and what must be in Postgres afterwards."""
        oracle = self.folder / "oracle.json.gz"
        return await self.serving("--generate", str(events), "--oracle", str(oracle)), oracle

    def close(self) -> None:
        for command in self.commands:
            command.kill()


def readme_commands() -> list[str]:
    """The README's commands for Docker."""
    section = (PROJECT / "README.md").read_text().split("\n## With Docker\n")[1].split("\n## ")[0]
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


async def test_the_quick_start_of_the_readme(project: Project, relays: Relays) -> None:
    recording = await relays.serving("--frames", str(PDS / "frames.bin.gz"))
    # The shell wins over .env, whose seven days no longer reach back to the recording.
    days, up, follow, select = readme_commands()
    assert (days, up) == ("export BACKFILL_DAYS=7", "docker-compose up -d")
    project.settings(RELAY_URL=recording, **FAST)
    started = f"{days.replace('7', '-1')}; {up}"
    project.shell(started)
    log = Command("follow", ["sh", "-c", f"exec {follow}"], project.environment, project.folder)
    try:
        await log.line("The ingest is done", 600.0)
    finally:
        log.kill()
    project.until("the position", lambda: project.cursor() == LAST_SEQ)
    assert re.search(rf"(?s)service .*backfill +\| {LAST_SEQ} .*\(1 row\)", project.shell(select).stdout)
    assert project.differences("--pds", PDS / "state.json.gz") == ""

    what_the_engine_says(project)
    assert all(isinstance(json.loads(line), dict) for line in project.logs()), "a line that is no JSON"

    # The position is saved, and nothing had to be killed.
    project.compose("stop")
    assert {service: project.state(service)["ExitCode"] for service in ("db", WORKER)} == {"db": 0, WORKER: 0}
    volumes = project.volumes()
    assert [name.rpartition("_")[2] for name in volumes] == ["db-data", "kafka-data", "worker-data"]
    project.compose("down")
    assert project.volumes() == volumes
    project.shell(started)
    project.until("the ingest's second end", lambda: any("The ingest is done" in line for line in project.logs()))
    assert project.cursor() == LAST_SEQ
    assert project.differences("--pds", PDS / "state.json.gz") == ""

    # Off: a sentence, 0, and no second start.
    project.shell(f"BACKFILL_DAYS=0 {up}")
    project.until("an end", lambda: project.state()["Status"] == "exited")
    assert (project.state()["ExitCode"], project.container()["RestartCount"]) == (0, 0)
    assert project.logs() == ["BACKFILL_DAYS=0: the backfill is off. Set it to a number of days, or -1 for everything."]

    # A name of ours that is mistyped in .env reaches the worker, which refuses it.
    project.settings(BACKFILL_DAYZ=7)
    done = project.compose("run", "--no-deps", "--rm", WORKER, check=False)
    assert (done.returncode, "did you mean BACKFILL_DAYS?" in done.stdout + done.stderr) == (2, True)
    # Started by the policy once more, it ends for good.
    project.shell(up)
    project.until("an end", lambda: project.state()["Status"] == "exited" and project.state()["ExitCode"] == 0)
    assert project.container()["RestartCount"] == 1
    assert any("did you mean BACKFILL_DAYS?" in line for line in project.logs())

    project.compose("down", "--volumes")
    assert project.volumes() == []


def what_the_engine_says(project: Project) -> None:
    """Health, limits and ports of the containers as they run."""
    for service in SERVICES:
        project.until(f"{service} is healthy", lambda service=service: project.health(service) == "healthy")
        container = project.container(service)
        ports = container["NetworkSettings"]["Ports"].values()
        assert {published["HostIp"] for found in ports for published in found or ()} == {"127.0.0.1"}, service
        assert container["RestartCount"] == 0, service
    worker = project.container()
    assert worker["HostConfig"]["Memory"] == 10240 * 1024 * 1024  # ten times what is assumed where nothing is set
    assert worker["Config"]["User"] == "10001"
    shown = project.compose("exec", "-T", WORKER, "faust", "-A", "streams.agents", "config", "show").stdout
    assert re.search(r"BACKFILL_DAYS +-1 +environment", shown), shown


@long
async def test_every_service_may_be_restarted_and_killed_in_the_middle(project: Project, relays: Relays) -> None:
    address, oracle = await relays.generated(6_000)
    project.settings(RELAY_URL=address, **STEADY)
    project.compose("up", "-d", BACKFILL_DAYS="-1")
    for service in (*SERVICES, *SERVICES[::-1]):
        goes_on(project, f"before the restart of {service}")
        project.compose("restart", service)
    for service in SERVICES:
        goes_on(project, f"before the end of {service}")
        project.engine.signal(project.state(service)["Pid"], signal.SIGKILL)
    goes_on(project, "after all that")
    settled(project, oracle)
    for service in SERVICES:
        assert not project.state(service)["OOMKilled"]


def goes_on(project: Project, when: str) -> None:
    """Wait until more is applied than now."""
    now = project.progress()
    project.until(f"progress {when}", lambda: project.progress() > now)


def settled(project: Project, oracle: Path) -> None:
    """Wait for the end of the ingest and of the worker's work, and compare."""
    last = str(load_oracle(oracle)["last_seq"])
    project.until("the end", lambda: project.cursor() == last, 1800.0)
    assert project.differences("--oracle", oracle) == ""


@long
async def test_a_service_that_hangs_is_unhealthy(project: Project, relays: Relays) -> None:
    recording = await relays.serving("--frames", str(PDS / "frames.bin.gz"))
    project.settings(RELAY_URL=recording, **FAST)
    project.compose("up", "-d", BACKFILL_DAYS="-1")
    project.until("the position", lambda: project.cursor() == LAST_SEQ)
    for service in SERVICES:
        project.until(f"{service} is healthy", lambda service=service: project.health(service) == "healthy")
    for service in SERVICES:
        frozen = project.engine.family(project.state(service)["Pid"])
        for pid in frozen:
            project.engine.signal(pid, signal.SIGSTOP)
        project.until(f"{service} is unhealthy", lambda service=service: project.health(service) == "unhealthy")
        for pid in frozen:
            project.engine.signal(pid, signal.SIGCONT)
        project.until(f"{service} is healthy again", lambda service=service: project.health(service) == "healthy")
    # A server without the database is not healthy: pg_isready would say that it is.
    project.compose("stop", WORKER)
    project.compose("exec", "-T", "db", "dropdb", "-U", "postgres", "--force", "atproto")
    project.until("db is unhealthy", lambda: project.health("db") == "unhealthy")


@long
async def test_a_tight_container_is_told_and_not_killed(project: Project, relays: Relays) -> None:
    address, oracle = await relays.generated(6_000)
    project.settings(RELAY_URL=address, CONTAINER_MEMORY_MB=500, BACKFILL_MAX_MEMORY_MB=512, **FAST)
    project.compose("up", "-d", BACKFILL_DAYS="-1")
    settled(project, oracle)
    assert project.container()["HostConfig"]["Memory"] == 500 * 1024 * 1024
    assert any("The container has 500 MB: this process may have 225 MB of it" in line for line in project.logs())
    assert (project.state()["OOMKilled"], project.container()["RestartCount"]) == (False, 0)


@long
@pytest.mark.parametrize("project", [CLUSTER], indirect=True)
async def test_three_brokers_and_four_workers(project: Project, relays: Relays) -> None:
    address, oracle = await relays.generated(6_000)
    project.settings(RELAY_URL=address, **STEADY)
    project.compose("up", "-d", BACKFILL_DAYS="-1")
    goes_on(project, "before a broker's end")
    topics = ("/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "localhost:19092", "--describe")
    said = project.compose("exec", "-T", "kafka-2", *topics, "--topic", "firehose.events").stdout
    assert "ReplicationFactor: 3" in said
    assert "min.insync.replicas=2" in said
    for service in ("kafka-3", f"{WORKER}-2", "kafka", WORKER):
        goes_on(project, f"before the end of {service}")
        project.engine.signal(project.state(service)["Pid"], signal.SIGKILL)
    settled(project, oracle)
