"""A copy of this project as a user has cloned it, and the commands that he types there."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.containers import downloads
from tests.containers.engine import Engine, Finished, run

WORKER: Final = "python-backfill-worker"
#: Seconds until something must have happened, on a machine that others keep busy.
PATIENCE: Final = 600.0
_FILES: Final = (
    "Dockerfile", ".dockerignore", "docker-compose.yml", "docker-compose.cluster.yml", ".env.example", "pyproject.toml",
    "README.md", "LICENSE", "requirements", "streams", "contrib",
)  # fmt: skip


class Project:
    """The folder, and ``docker-compose`` in it. The project's name at the engine is the folder's."""

    def __init__(self, engine: Engine, folder: Path, *files: str) -> None:
        """``files``: the compose files, where they are not the default one."""
        self.engine, self.folder = engine, folder
        self._options = [part for file in files for part in ("-f", file)]
        for name in _FILES:
            source = downloads.PROJECT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        programs = engine.folder / "bin"
        programs.mkdir(exist_ok=True)
        if not (programs / "docker-compose").exists():
            (programs / "docker-compose").symlink_to(downloads.compose_program())
        self.environment = {
            **os.environ, **engine.environment, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    # -- commands
    def shell(self, text: str, **environment: str) -> Finished:
        """Run what a user types. Raises StreamsError where it fails."""
        return run(["sh", "-c", text], {**self.environment, **environment}, folder=self.folder)

    def compose(self, *arguments: str, check: bool = True, **environment: str) -> Finished:
        """Run docker-compose. Raises StreamsError where it fails and ``check`` is set."""
        command = ["docker-compose", *self._options, *arguments]
        return run(command, {**self.environment, **environment}, folder=self.folder, check=check)

    def settings(self, **settings: str | int) -> None:
        """Make .env as a user does: a copy of .env.example, and lines of his own below."""
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (self.folder / ".env").write_text((self.folder / ".env.example").read_text() + "".join(lines))

    # -- what is
    def container(self, service: str = WORKER) -> dict[str, Any]:
        """What the engine says of a service's container; empty where there is none."""
        found = self.compose("ps", "--all", "--quiet", service).stdout.split()
        return self.engine.inspect(found[0]) if found else {}

    def state(self, service: str = WORKER) -> dict[str, Any]:
        """The state of a service's container."""
        return dict(self.container(service).get("State", {}))

    def health(self, service: str = WORKER) -> str:
        """What the health check says: starting, healthy, unhealthy."""
        return str(self.state(service).get("Health", {}).get("Status"))

    def volumes(self) -> list[str]:
        """The names of this project's volumes."""
        label = f"label=com.docker.compose.project={self.folder.name}"
        return sorted(self.engine.docker("volume", "ls", "--quiet", "--filter", label).stdout.split())

    def logs(self, service: str = WORKER) -> list[str]:
        """The lines of a service's log."""
        return self.compose("logs", "--no-log-prefix", "--no-color", service).stdout.splitlines()

    def query(self, sql: str) -> str:
        """What psql answers, without a frame."""
        return self.compose("exec", "-T", "db", "psql", "-U", "postgres", "-d", "atproto", "-qAtc", sql).stdout.strip()

    def progress(self) -> int:
        """How many messages are applied; 0 while nothing can be asked."""
        sql = "SELECT coalesce(sum(received), 0) FROM firehose.sink_offsets"
        done = self.compose("exec", "-T", "db", "psql", "-U", "postgres", "-d", "atproto", "-qAtc", sql, check=False)
        return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else 0

    def cursor(self) -> str:
        """The position, as the row of the README's SELECT has it; empty while there is none."""
        done = self.compose(
            "exec", "-T", "db", "psql", "-U", "postgres", "-d", "atproto", "-qAtc",
            "SELECT cursor FROM firehose_cursor WHERE service = 'backfill'", check=False,
        )  # fmt: skip
        return done.stdout.strip()

    def differences(self, expected: str, file: Path) -> str:
        """What is not in Postgres as it must be, from outside, by the port that is published; empty where all is.

        ``expected``: the option of tests.containers.exact that says what the file is.
        """
        command = [sys.executable, "-m", "tests.containers.exact", expected, str(file)]
        done = run(self.engine.inside(command), dict(os.environ), folder=downloads.PROJECT, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def until(self, what: str, reached: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is so. Raises AssertionError, with the log's end, where it takes longer."""
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                said = self.compose("ps", "--all", check=False).stdout + "\n".join(self.logs()[-15:])
                raise AssertionError(f"{what}: not in {seconds:.0f} s\n{said}")
            time.sleep(0.5)
