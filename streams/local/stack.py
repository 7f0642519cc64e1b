"""The embedded Kafka and Postgres as one thing in one folder: started once, shared by all, recovered after a crash.

``stack.json`` stands in the folder from up to down and holds the settings that point at both.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from streams.errors import DiskError, SettingsError
from streams.local.kafka import Kafka
from streams.local.postgres import Postgres
from streams.local.process import family, folder_bytes, resident_bytes, write_secret

#: Postgres takes paths of up to 1,024 bytes; so much is left for what is below the folder.
_LONGEST: Final = 900
#: Not escaped or quoted by either: Kafka separates its folders by commas, Postgres' configuration is made of lines.
_UNUSABLE: Final = {",": "a comma", "\n": "a line's end", "\r": "a carriage return"}
#: Less free space than this, in bytes, is not worth a start: both servers would stop in the middle of something.
LEAST_FREE: Final = 300 * 1024 * 1024


@dataclass(frozen=True)
class PartStatus:
    """One part of the stack. Sizes are bytes; ``address`` is None before the first start."""

    up: bool
    pids: list[int]
    address: str | None
    resident_bytes: int
    data_bytes: int


@dataclass(frozen=True)
class StackStatus:
    """The whole stack: up only when both parts answer."""

    up: bool
    folder: str
    kafka: PartStatus
    postgres: PartStatus

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def check_folder(folder: Path) -> None:
    """Refuse a folder that Kafka or Postgres cannot take. Raises SettingsError with what is wrong in its name."""
    text = str(folder)
    wrong = next((words for character, words in _UNUSABLE.items() if character in text), None)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        wrong, size = "bytes that are not UTF-8", 0
    if size > _LONGEST:
        wrong = f"{size} bytes, and {_LONGEST} are the most"
    if wrong is not None:
        raise SettingsError(
            f"LOCAL_DIR: {ascii(text)[:200]} has {wrong}, which the embedded Kafka and Postgres cannot use",
            "take another folder.",
        )


class Stack:
    """The stack in ``folder``; as a context manager it is up inside and down after.

    ``say`` gets one line for each step that takes a while. ``fsync=False`` is for tests (see Postgres).
    ``kafka`` and ``postgres`` have ``start, stop, restart, kill, freeze, thaw, pids``; so has each of ``kafka.brokers``
    but for start and stop.
    """

    def __init__(
        self, folder: Path, *, brokers: int = 1, fsync: bool = True, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder = folder.resolve()
        self._say = say
        logs = self.folder / "logs"
        self.kafka = Kafka(self.folder / "kafka", logs, brokers, say)
        self.postgres = Postgres(self.folder / "postgres", logs, fsync=fsync, say=say)
        self._state_file = self.folder / "stack.json"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def bootstrap_servers(self) -> str:
        """The value for KAFKA_BOOTSTRAP_SERVERS."""
        return self.kafka.bootstrap_servers

    @property
    def dsn(self) -> str:
        """The value for DATABASE_URL."""
        return self.postgres.dsn

    def is_up(self) -> bool:
        """Return True if both parts answer."""
        return self.kafka.is_running() and self.postgres.is_ready() and self.kafka.is_ready()

    def up(self) -> bool:
        """Bring up what is down, however it ended; return True if there was anything to do.

        Raises SettingsError (not installed), BrokerError, DatabaseError, DiskError, StreamsError (the folder).
        """
        check_folder(self.folder)
        with self._alone():
            if self.is_up() and self._state_file.exists():
                return False
            free = shutil.disk_usage(self.folder).free
            if free < LEAST_FREE:
                raise DiskError(
                    f"Only {free // 1_000_000} MB are free at {self.folder}: the embedded stack needs 300 MB."
                )
            with self._in_words():
                self.kafka.install()  # what is not there is told before anything is started
                self._timed("Postgres", self.postgres.start)
                self._timed("Kafka", self.kafka.start)
            self._write_state()
            return True

    def down(self) -> bool:
        """Stop both; return True if each ended by itself, False if one was killed. A no-op when nothing runs."""
        if not self.folder.exists():
            return True
        with self._alone():
            self._state_file.unlink(missing_ok=True)
            clean = [self.kafka.stop(), self.postgres.stop()]
            return all(clean)

    def status(self) -> StackStatus:
        """Return which parts are up, and what they take. It waits for nothing."""
        broker_processes = [process for broker in self.kafka.brokers for process in family(broker.find())]
        server_processes = family(self.postgres.find())
        kafka = PartStatus(
            up=bool(broker_processes) and self.kafka.is_ready(),
            pids=[process.pid for process in broker_processes],
            address=self.kafka.bootstrap_servers or None,
            resident_bytes=resident_bytes(broker_processes),
            data_bytes=folder_bytes(self.kafka.folder),
        )
        postgres = PartStatus(
            up=self.postgres.is_ready(),
            pids=self.postgres.pids(),
            address=self.postgres.address or None,
            resident_bytes=resident_bytes(server_processes),
            data_bytes=folder_bytes(self.postgres.folder),
        )
        return StackStatus(kafka.up and postgres.up, str(self.folder), kafka, postgres)

    def environment(self) -> dict[str, str]:
        """The settings that point everything at this stack."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers, "DATABASE_URL": self.dsn}

    def _timed(self, name: str, start: Callable[[], None]) -> None:
        began = time.monotonic()
        start()
        self._say(f"{name} is up ({time.monotonic() - began:.1f} s)")

    def _write_state(self) -> None:
        state = {
            "kafka_bootstrap_servers": self.bootstrap_servers,
            "database_url": self.dsn,
            "kafka_pids": " ".join(map(str, self.kafka.pids())),
            "postgres_pid": " ".join(map(str, self.postgres.pids())),
        }
        write_secret(self._state_file, json.dumps(state, indent=2) + "\n")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock: two starts at once become one start and one look."""
        with self._in_words():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("waiting for another start or stop of the same stack")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SettingsError(f"LOCAL_DIR: the folder {self.folder} cannot be used: {error}.") from None
