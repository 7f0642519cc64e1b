"""The embedded Kafka: one or more KRaft brokers on loopback, their data and configuration in one folder.

A broker is a process of its own that survives whoever started it; the folder is all that is known about it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from streams.errors import BrokerError, DiskError
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
)

READY_SECONDS: Final = 300.0
STOP_SECONDS: Final = 30.0
#: Largest message in bytes, as the topic's and the producer's limit (docs/performance.md).
MESSAGE_BYTES: Final = 8 * 1024 * 1024
# Only the first compiler: a broker is ready in half the time and half the CPU, and no slower at what we ask of it
# (docs/performance.md).
#: Java takes the names of files in its arguments by the locale.
_UTF8: Final = {"LC_ALL": "C.UTF-8"}
_JVM: Final = ("-Xmx512m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true")
_TELLING: Final = ("No space left", "Address already in use", "BindException", "FATAL", "ERROR", "Exception", "Error")
#: A start that failed with less room than this, in bytes, failed for that. Kafka itself may speak of an "unsafe memory
#: access": what of a mapped file has no room on the disk cannot be written.
_NO_ROOM: Final = 16 * 1024 * 1024
_PORT_TROUBLE: Final = ("Address already in use", "BindException")
_START_ATTEMPTS: Final = 3

_SERVER = """\
# Written at every start by `python -m streams.local up`.
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{client}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=8
auto.create.topics.enable=false
log.preallocate=false
message.max.bytes={message_bytes}
replica.fetch.max.bytes={message_bytes}
group.initial.rebalance.delay.ms=0
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
# After a SIGKILL the controller refuses the broker until the session of before has ended: 9 s by default.
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=1000
# The cleaner's default of 128 MB is a quarter of the heap, for topics that hold kilobytes.
log.cleaner.dedupe.buffer.size=33554432
"""

_LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss,SSS}} %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


class Broker:
    """One broker of the cluster, known by the path of its ``server.properties``."""

    def __init__(self, node: int, folder: Path, logs: Path) -> None:
        self.node = node
        self.name = f"Kafka broker {node}"
        self.config = folder / f"broker-{node}" / "server.properties"
        self.data = folder / f"broker-{node}" / "data"
        self.log = logs / f"kafka-{node}.log"
        self.output = logs / f"kafka-{node}.out"
        self._marks: dict[Path, int] = {}

    def find(self) -> psutil.Process | None:
        """The broker's process, if it runs."""
        return find_process(lambda command: "kafka.Kafka" in command and command[-1] == str(self.config))

    def pids(self) -> list[int]:
        """The pid, in a list, if it runs."""
        process = self.find()
        return [process.pid] if process else []

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        processes = family(self.find())
        send(processes, signal.SIGKILL)
        wait_gone(processes, STOP_SECONDS)

    def freeze(self) -> None:
        """SIGSTOP: the broker holds its connections and does nothing."""
        send(family(self.find()), signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        send(family(self.find()), signal.SIGCONT)

    def launch(self, java: list[str]) -> None:
        """Start the broker's process. What its logs say from here on is about this start."""
        self._marks = {log: log.stat().st_size if log.exists() else 0 for log in (self.log, self.output)}
        logging = self.config.with_name("log4j2.properties")
        start_detached(
            [*java, f"-Dlog4j2.configurationFile={logging}", "kafka.Kafka", str(self.config)],
            self.output, env={**os.environ, **_UTF8},
        )  # fmt: skip

    def failure(self) -> BrokerError | DiskError:
        """Why it did not start, as far as its logs tell."""
        log = next(
            (log for log, mark in self._marks.items() if log.exists() and log.stat().st_size > mark), self.output
        )
        words = last_words(log, _TELLING, self._marks.get(log, 0))
        if "No space left" in words or shutil.disk_usage(self.config.parent).free < _NO_ROOM:
            return DiskError("The disk of the embedded Kafka is full", f"make room below {self.data} (log: {log}).")
        return BrokerError(f"The embedded Kafka did not start: {words} (log: {log}).")


class Kafka:
    """A cluster of ``count`` brokers below ``folder``, logs below ``logs``. ``start`` is a no-op for what runs.

    ``advertised``: the port that each broker tells its clients to use, where that is not its own (a proxy's).
    """

    advertised: Sequence[int] = ()

    def __init__(self, folder: Path, logs: Path, count: int = 1, say: Callable[[str], None] = lambda _: None) -> None:
        self.folder = folder.resolve()
        self.logs = logs.resolve()
        self.brokers = [Broker(node, self.folder, self.logs) for node in range(1, count + 1)]
        self._say = say
        self._facts_file = self.folder / "cluster.json"

    # -- what is
    @property
    def bootstrap_servers(self) -> str:
        """host:port of every broker, separated by commas; empty before the first start."""
        return ",".join(f"{ports.LOOPBACK}:{port}" for port in self._ports()[: len(self.brokers)])

    def pids(self) -> list[int]:
        """The pids of the brokers that run."""
        return [pid for broker in self.brokers for pid in broker.pids()]

    def is_running(self) -> bool:
        """Return True while every broker's process runs."""
        return len(self.pids()) == len(self.brokers)

    def is_ready(self) -> bool:
        """Return True if every broker knows all brokers of the cluster as alive."""
        clients = self._ports()[: len(self.brokers)]
        return bool(clients) and all(live_brokers(port) >= len(self.brokers) for port in clients)

    # -- what is done
    def install(self) -> list[str]:
        """The command line of its Java, with all jars downloaded. Raises SettingsError and StreamsError."""
        return [jars.find_java(), *_JVM, "-cp", f"{jars.install_jars(self._say)}/*"]

    def start(self) -> None:
        """Start the brokers that do not run and wait until the cluster is ready; the ports stay unless they are taken.

        Raises SettingsError (not installed), BrokerError and DiskError.
        """
        for broker in self.brokers:
            process = broker.find()
            if process is not None and is_frozen(process):
                broker.thaw()
        if self.is_running() and wait_until(self.is_ready, self.is_running, READY_SECONDS):
            return
        java = self.install()
        for attempt in range(1, _START_ATTEMPTS + 1):
            if self._start_once(java):
                return
            silent = next((broker for broker in self.brokers if broker.find() is None), self.brokers[0])
            failure = silent.failure()
            trouble = any(word in str(failure) for word in _PORT_TROUBLE)
            if not trouble or attempt == _START_ATTEMPTS:
                raise failure
            self.stop()
            self._write_facts(self._facts() | {"ports": []})

    def _start_once(self, java: list[str]) -> bool:
        self._settle_facts()
        self.logs.mkdir(parents=True, exist_ok=True)
        for broker in self.brokers:
            if broker.find() is None:
                self._configure(broker, broker.data)
                self._format(broker, java)
        for broker in self.brokers:
            if broker.find() is None:
                broker.launch(java)
        return wait_until(self.is_ready, self.is_running, READY_SECONDS)

    def stop(self) -> bool:
        """Send SIGTERM to all, and SIGKILL after half a minute; return True if all ended by themselves."""
        processes = [process for broker in self.brokers for process in family(broker.find())]
        send(processes, signal.SIGCONT)
        send(processes, signal.SIGTERM)
        if wait_gone(processes, STOP_SECONDS):
            return True
        send(processes, signal.SIGKILL)
        wait_gone(processes, STOP_SECONDS)
        return False

    def kill(self) -> None:
        """SIGKILL to every broker."""
        for broker in self.brokers:
            broker.kill()

    def freeze(self) -> None:
        """SIGSTOP to every broker."""
        for broker in self.brokers:
            broker.freeze()

    def thaw(self) -> None:
        """SIGCONT to every broker."""
        for broker in self.brokers:
            broker.thaw()

    def restart(self) -> None:
        """Stop and start again, on the same ports."""
        self.stop()
        self.start()

    # -- the folder
    def _facts(self) -> dict[str, object]:
        try:
            facts = json.loads(self._facts_file.read_text())
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def _write_facts(self, facts: dict[str, object]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._facts_file.with_suffix(".new")
        new.write_text(json.dumps(facts))
        new.replace(self._facts_file)

    def _ports(self) -> list[int]:
        found = self._facts().get("ports")
        return [int(port) for port in found] if isinstance(found, list) else []

    def _settle_facts(self) -> None:
        """Decide the cluster's id once, its size once, and its ports whenever no broker runs."""
        facts = self._facts()
        size = facts.setdefault("brokers", len(self.brokers))
        if size != len(self.brokers):
            raise BrokerError(
                f"The folder {self.folder} holds a cluster of {size} brokers, not {len(self.brokers)}",
                "take another folder.",
            )
        facts.setdefault("cluster_id", _new_cluster_id())
        if not self.pids():
            facts["ports"] = ports.choose(2 * len(self.brokers), self._ports())
        self._write_facts(facts)

    def _configure(self, broker: Broker, data: Path) -> None:
        count = len(self.brokers)
        chosen = self._ports()
        clients, controllers = chosen[:count], chosen[count:]
        broker.config.parent.mkdir(parents=True, exist_ok=True)
        broker.config.write_text(
            _properties(
                _SERVER,
                node=broker.node,
                voters=",".join(
                    f"{b.node}@{ports.LOOPBACK}:{port}" for b, port in zip(self.brokers, controllers, strict=True)
                ),
                client=clients[broker.node - 1],
                advertised=(self.advertised or clients)[broker.node - 1],
                controller=controllers[broker.node - 1],
                data=data,
                message_bytes=MESSAGE_BYTES,
                replicas=min(3, count),
                in_sync=2 if count >= 3 else 1,
            )
        )
        broker.config.with_name("log4j2.properties").write_text(_properties(_LOGGING, log=broker.log))

    def _format(self, broker: Broker, java: list[str]) -> None:
        """Format the data folder beside its place and move it there: a crash in between leaves nothing half made."""
        if broker.data.exists():
            return
        fresh = broker.data.with_name(f"data.new-{os.getpid()}")
        self._configure(broker, fresh)
        command = [
            *java,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            str(self._facts()["cluster_id"]),
            "-c",
            str(broker.config),
        ]
        with broker.output.open("ab") as output:
            done = subprocess.run(  # noqa: S603 (our own command)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                env={**os.environ, **_UTF8},
            )
        if done.returncode != 0:
            raise broker.failure()
        fresh.replace(broker.data)
        self._configure(broker, broker.data)


def _properties(template: str, **values: object) -> str:
    """A properties file of Java: Latin-1, and all else as its UTF-16 units (``Properties.load``)."""
    text = template.format(**{name: str(value).replace("\\", "\\\\") for name, value in values.items()})
    units = text.encode("utf-16-be")
    numbers = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    return "".join(chr(number) if number < 128 else f"\\u{number:04x}" for number in numbers)


def _new_cluster_id() -> str:
    """A random id in Kafka's form; as Kafka's own, never with a dash in front, which its tools take for an option."""
    return "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]


def live_brokers(port: int, timeout: float = 2.0) -> int:
    """How many brokers the broker on ``port`` knows as alive; 0 if it does not answer within ``timeout`` seconds.

    One Metadata request (version 1, no topics) over a plain socket: an open port alone does not mean that topics can
    be made yet, and a client library would want an event loop for this one question.
    """
    header = struct.pack(">hhih", 3, 1, 1, -1)
    request = header + struct.pack(">i", 0)
    try:
        with socket.create_connection((ports.LOOPBACK, port), timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            reply = connection.recv(12, socket.MSG_WAITALL)
    except OSError:
        return 0
    if len(reply) < 12:
        return 0
    _, correlation, brokers = struct.unpack(">iii", reply)
    return int(brokers) if correlation == 1 else 0
