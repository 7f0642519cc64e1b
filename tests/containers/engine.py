"""A Docker engine of the tests' own: no port, no rule and no route of this machine is touched.

It runs in namespaces of its own (network, mounts, processes): what it publishes on loopback is on a loopback that only
``inside`` reaches, and all that it started ends with it. Images are kept between runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from streams.errors import StreamsError
from tests.containers import downloads

READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
#: Debian's package docker.io has them, and what else they need.
PROGRAMS: Final = ("dockerd", "docker", "containerd", "runc", "iptables", "nsenter", "unshare", "setpriv", "ip")
#: The engine's own address, where containers reach what listens beside it.
BRIDGE: Final = "172.17.0.1"
_START: Final = "ip link set lo up && exec dockerd"
Finished = subprocess.CompletedProcess[str]


def missing() -> str | None:
    """Return why no engine can run here; None where nothing speaks against it."""
    if os.geteuid() != 0:
        return "containers are run by root only"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(absent)} is not installed (Debian: docker.io, iptables, iproute2)" if absent else None


class Engine:
    """dockerd, as a context: entering starts it, leaving ends it with all its containers."""

    def __init__(self, folder: Path) -> None:
        """``folder``: what it writes while it runs. Images and build caches are below downloads.CACHE."""
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.log = folder / "dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None
        downloads.CACHE.mkdir(parents=True, exist_ok=True)
        self._lock = (downloads.CACHE / "lock").open("w")

    def __enter__(self) -> Self:
        """Start it and wait until it answers. Another engine with the same images is waited for.

        Raises StreamsError.
        """
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        options = ["--data-root", str(downloads.CACHE / "engine"), "--exec-root", str(self.folder / "exec")]
        options += ["--pidfile", str(self.folder / "pid"), "--host", f"unix://{self.socket}", "--bip", f"{BRIDGE}/16"]
        # Where the process that started it is killed, it ends too.
        own = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--mount-proc", "--pid", "--fork"]
        command = [*own, "--kill-child=SIGKILL", "sh", "-c", f'{_START} "$@"', "dockerd", *options]
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + READY_SECONDS
        while self.docker("info", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise StreamsError(f"The Docker engine does not start here: {self.log.read_text()[-600:]}")
            time.sleep(0.1)
        self._forget()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and with it every container."""
        assert self._process is not None
        for pid in self._children():
            os.kill(pid, signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._lock.close()

    def _forget(self) -> None:
        """Remove what a killed run has left, and images of before: only images that have a name are to be kept."""
        left = self.docker("ps", "--all", "--quiet").stdout.split()
        if left:
            self.docker("rm", "--force", "--volumes", *left)
        for kind in ("volume", "network", "image"):
            self.docker(kind, "prune", "--force")
        self.docker("builder", "prune", "--force", "--keep-storage", "2gb")

    @property
    def pid(self) -> int:
        """The engine's pid: the child of unshare, first of its namespace."""
        return self._children()[0]

    def _children(self) -> list[int]:
        assert self._process is not None
        try:
            found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in found.split()]

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command as it must be started to be in the engine's network."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process whose pid the engine has said: those are of its own namespace."""
        run(["nsenter", f"--target={self.pid}", "--pid", "--mount", "kill", f"-{number:d}", str(pid)], dict(os.environ))

    def family(self, pid: int) -> list[int]:
        """A process of a container and its descendants, as the engine counts them."""
        look = ["nsenter", f"--target={self.pid}", "--pid", "--mount", "ps", "-e", "-o", "pid=,ppid="]
        parents = dict(map(int, line.split()) for line in run(look, dict(os.environ)).stdout.splitlines())
        found = [pid]
        for known in found:
            found += [child for child, parent in parents.items() if parent == known]
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What tells Docker's own programs where the engine is, and that they keep nothing in the user's home."""
        return {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.folder / "config")}

    def docker(self, *arguments: str, check: bool = True) -> Finished:
        """Run Docker's command line. Raises StreamsError where it fails and ``check`` is set."""
        return run(["docker", *arguments], {**os.environ, **self.environment}, check=check)

    def inspect(self, what: str, kind: str = "container") -> dict[str, Any]:
        """What the engine says of a container, an image or a volume; empty where it does not know it."""
        said = self.docker(kind, "inspect", what, check=False)
        return dict(json.loads(said.stdout)[0]) if said.returncode == 0 else {}

    def label(self, image: str, name: str) -> str | None:
        """An image's label."""
        labels: Mapping[str, str] = self.inspect(image, "image").get("Config", {}).get("Labels") or {}
        return labels.get(name)


def run(
    command: Sequence[str], environment: Mapping[str, str], *, folder: Path | None = None, check: bool = True
) -> Finished:
    """Run a command to its end. Raises StreamsError, with what it said, where it fails and ``check`` is set."""
    done = subprocess.run(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode != 0:
        said = done.stdout[-2000:] + done.stderr[-4000:]
        raise StreamsError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done
