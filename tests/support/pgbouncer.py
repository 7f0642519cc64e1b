"""A real pgbouncer on loopback, in front of the test's Postgres. Where the machine has none, its tests are skipped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.commands import free_port

#: Debian keeps it where only root's PATH looks.
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")

needed = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer here: `make debian` installs one where it can")


class Pgbouncer:
    """A pgbouncer with a configuration of its own. ``url`` is what DATABASE_URL says of it."""

    def __init__(self, dsn: str, folder: Path, mode: str, **options: object) -> None:
        self.target = urlsplit(dsn)
        self.port = free_port()
        self.folder = folder
        self.write(mode, **options)
        folder.chmod(0o777)
        self.start()

    def start(self) -> None:
        """Start it; after ``stop``, again."""
        # It refuses to run as root.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [str(PROGRAM), *user, "pgbouncer.ini"], cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def write(self, mode: str, **options: object) -> None:
        """Its configuration; ``reload`` makes it hold."""
        url = self.target
        more = "\n".join(f"{name} = {value}" for name, value in options.items())
        (self.folder / "users.txt").write_text(f'"{url.username}" "{url.password or ""}"\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={url.hostname} port={url.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = users.txt\npool_mode = {mode}\nlogfile = pgbouncer.log\n{more}\n"
        )

    @property
    def url(self) -> str:
        user, at, _ = self.target.netloc.rpartition("@")
        return self.target._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    def reload(self, mode: str, **options: object) -> None:
        """Another configuration, while it runs."""
        self.write(mode, **options)
        self.process.send_signal(signal.SIGHUP)

    def ready(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, "pgbouncer has ended"
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def pgbouncer(dsn: str, folder: Path, mode: str = "session", **options: object) -> Iterator[Pgbouncer]:
    """It runs, and listens."""
    path = folder / f"pgbouncer-{mode}"
    path.mkdir(exist_ok=True)
    for parent in (folder, *folder.parents):  # nobody must reach it
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    made = Pgbouncer(dsn, path, mode, **options)
    try:
        made.ready()
        yield made
    finally:
        made.stop()
