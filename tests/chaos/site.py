"""What a campaign breaks: a relay, Kafka, Postgres, two ingests and three workers, with a proxy before each server.

The processes are restarted when they end, as ``restart: on-failure`` would: what a process may not do is end by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from streams.local import ports
from streams.local.stack import Stack
from streams.simulator.manner import Beyond, Manner
from streams.simulator.oracle import Oracle, State, load_oracle
from streams.simulator.relay import DevRelay
from streams.simulator.retained import FrameStore
from streams.simulator.traffic import Plan, Reset, Traffic
from tests.acceptance.commands import Command
from tests.acceptance.deployment import Deployment
from tests.acceptance.proxy import Proxy
from tests.support.patience import PATIENCE

#: Small batches with short waits: there is always one in flight to interrupt.
PACE = {"BACKFILL_BATCH_SIZE": "300", "BACKFILL_BATCH_DELAY_MS": "20", "BACKFILL_USE_IDLE": "false"}
#: Where Python finds the clock that can be set (its docstring says how).
CLOCK = os.pathsep.join((str(Path(__file__).with_name("clock")), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep)
#: What a cursor beyond the head is answered with after each reset.
BEYOND = (Beyond.ERROR, Beyond.LIVE, Beyond.HTTP)
#: Frames that come out at once, at most; and the frames at the end of a sequence that may have to come one by one.
MOST_AT_ONCE = 200
SLOWLY = 100
#: How often the relay's sequence begins anew in a campaign.
RESETS = 3
#: Seconds between the end of a process and its next start.
RESTART_AFTER = 0.5
#: A process that finds Kafka, Postgres or the relay away when it starts waits a while, and ends with one of these.
AWAY_CODES = (3, 4, 5)


class Look:
    """Queries that survive what is done to the database: a connection for each, straight to the server."""

    def __init__(self, dsn: Callable[[], str]) -> None:
        self._dsn = dsn

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows; none while the server does not answer."""
        try:
            async with asyncio.timeout(3):
                connection = await asyncpg.connect(self._dsn(), timeout=2)
                try:
                    return list(await connection.fetch(statement, *arguments, timeout=2))
                finally:
                    connection.terminate()
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError,
                asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError):  # fmt: skip
            return []

    async def close(self) -> None:
        """Nothing is held."""


@dataclass
class Exit:
    """A process that ended, and whether somebody had asked for that."""

    name: str
    code: int
    asked: bool
    tail: str


@dataclass
class Kept:
    """A process that is started again whenever it ends, unless it ``rests``."""

    name: str
    start: Callable[[], Command]
    command: Command
    rests: bool = False
    #: Signals that were sent to the command that runs now: it may end by them.
    sent: set[int] = field(default_factory=set)
    #: Whether the end of that command is written down.
    noted: bool = False

    def run(self) -> None:
        """Start it, once its command has ended."""
        self.sent.clear()
        self.noted = False
        self.command = self.start()

    def send(self, number: int) -> None:
        """A signal, if there is a process."""
        if self.command.running:
            self.sent.add(number)
            self.command.process.send_signal(number)

    def ended(self) -> Exit:
        """Its end, once it has."""
        code = int(self.command.process.returncode)
        asked = (code == -signal.SIGKILL and signal.SIGKILL in self.sent) or (code == 0 and signal.SIGTERM in self.sent)
        # While Python imports, before a word is said, a SIGTERM ends it (docs/guarantees.md, no silent end).
        asked |= code == -signal.SIGTERM and signal.SIGTERM in self.sent and not self.command.output
        return Exit(self.command.name, code, asked, self.command.output[-2000:])


class Site:
    """Everything of one campaign, up inside ``opened``."""

    def __init__(
        self, stack: Stack, relay: DevRelay, oracle: State, deployment: Deployment, proxies: dict[str, Proxy]
    ) -> None:
        self.stack, self.relay, self.oracle, self.deployment = stack, relay, oracle, deployment
        self.proxies = proxies
        self.kept: dict[str, Kept] = {}
        self.exits: list[Exit] = []
        self.blocked_lately: Callable[[], bool] = lambda: False

    @property
    def workers(self) -> list[Kept]:
        """The workers, those that rest too."""
        return [kept for name, kept in self.kept.items() if name.startswith("worker")]

    def keep(self, name: str) -> Kept:
        """Start a process and keep it running."""
        is_worker = name.startswith("worker")
        clock = {"PYTHONPATH": CLOCK, "CHAOS_CLOCK": str(self._clock_of(name))}

        def start() -> Command:
            if is_worker:
                return self.deployment.worker(WORKER_ID=name.removeprefix("worker"), **PACE, **clock)
            return self.deployment.ingest(self.proxied_relay, "--follow", "--standby", **clock)

        self.kept[name] = Kept(name, start, start())
        return self.kept[name]

    @property
    def proxied_relay(self) -> str:
        """The relay's address, by way of its proxy."""
        return f"ws://127.0.0.1:{self.proxies['relay'].port}{urlsplit(self.relay.url).path}"

    def _clock_of(self, name: str) -> Path:
        return self.deployment.folder / f"{name}.clock"

    def step_clock(self, name: str, seconds: float) -> float:
        """Move the clock of a process, until it is moved again, also of those that are started in its place.

        Returns by how many seconds it is wrong now.
        """
        file = self._clock_of(name)
        wrong = (float(file.read_text()) if file.exists() else 0.0) + seconds
        new = file.with_suffix(".new")
        new.write_text(str(wrong))
        new.replace(file)
        return wrong

    async def supervise(self) -> None:
        """Start again what ended, for ever."""
        while True:
            for kept in self.kept.values():
                if not kept.rests and not kept.command.running:
                    self.note_end(kept)
                    await asyncio.sleep(RESTART_AFTER)
                    if not kept.rests and not kept.command.running:  # a fault may have come for it meanwhile
                        kept.run()
            await asyncio.sleep(0.1)

    def note_end(self, kept: Kept) -> None:
        """Write down how a process ended, once."""
        if kept.noted:
            return
        kept.noted = True
        end = kept.ended()
        gave_up = end.code in AWAY_CODES and self.blocked_lately() and "Traceback" not in end.tail
        self.exits.append(replace(end, asked=end.asked or gave_up))

    async def rest(self, kept: Kept, number: int) -> None:
        """End it by a signal, and leave it so."""
        kept.rests = True
        kept.send(number)
        for _ in range(int(PATIENCE / 0.05)):
            if not kept.command.running:
                self.note_end(kept)
                return
            await asyncio.sleep(0.05)
        self.exits.append(Exit(kept.command.name, 0, asked=False, tail="did not end after a SIGTERM"))
        kept.command.kill()

    def again(self, kept: Kept) -> None:
        """Start what rests."""
        kept.run()
        kept.rests = False

    async def stop(self) -> None:
        """SIGTERM to all that runs; each must end with 0."""
        await asyncio.gather(*(self.rest(kept, signal.SIGTERM) for kept in self.kept.values() if not kept.rests))

    # -- servers

    def ends_of_sequences(self) -> set[int]:
        """The last seq of each sequence that the relay has left."""
        return {self.relay.store.seqs[reset - 1] for reset in self.relay.store.resets if reset <= self.relay.head_index}

    async def publish(self, count: int) -> None:
        """Let out more frames; a new sequence only once all of the old one was applied, for the relay forgets that."""
        relay, resets = self.relay, self.relay.store.resets
        if relay.head_index in resets:
            if await self.deployment.cursor() != relay.head:
                return
            number = resets.index(relay.head_index) % len(BEYOND)
            relay.manner = replace(relay.manner, beyond=BEYOND[number])
        left = next((reset - relay.head_index for reset in resets if reset > relay.head_index), len(relay.store))
        # A relay that only goes on live, whatever the cursor is, says nothing of a new sequence but by what comes: its
        # last frames come slowly, while an ingest may still be away.
        slowly = SLOWLY if relay.manner.beyond is Beyond.LIVE else 0
        relay.publish(min(count, MOST_AT_ONCE, max(1, left - slowly)))

    async def restart_relay(self, seconds: float) -> None:
        """Gone without a word, back after a while on the same port with the same frames."""
        for subscription in list(self.relay.subscriptions):
            subscription.abort()
        await self.relay.__aexit__(None, None, None)
        await asyncio.sleep(seconds)
        await self.relay.__aenter__()

    def stop_postgres_at_once(self) -> None:
        """An immediate shutdown: no checkpoint, recovery at the next start."""
        for pid in self.stack.postgres.pids():
            os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + 20
        while self.stack.postgres.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)


def _generated(events: int, seed: int, folder: Path) -> tuple[FrameStore, State]:
    oracle = Oracle()
    # Each sequence has numbers of its own, below those of the one before: so a gap tells which one it is of.
    resets = tuple(Reset(events * n // (RESETS + 1), 1_000_000_000 * (RESETS - n) + 1) for n in range(1, RESETS + 1))
    plan = Plan(events, seed, large_every=max(500, events // 12), resets=resets)
    store = FrameStore(Traffic(plan, oracle).frames())
    oracle.write_to(folder / "oracle.json")
    return store, load_oracle(folder / "oracle.json")


@asynccontextmanager
async def opened(folder: Path, *, events: int, seed: int) -> AsyncIterator[Site]:
    """A site with its servers up; nothing of the traffic is out yet, and no process of ours runs."""
    store, oracle = await asyncio.to_thread(_generated, events, seed, folder)
    stack = Stack(folder / "stack", fsync=False)
    [kafka_port] = ports.choose(1, [])
    stack.kafka.advertised = [kafka_port]
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(asyncio.to_thread, stack.down)
        await asyncio.to_thread(stack.up)
        relay = await closing.enter_async_context(DevRelay(store, published=0, manner=Manner(cut_at_reset=True)))
        servers = {
            "kafka": (int(stack.bootstrap_servers.rpartition(":")[2]), kafka_port),
            "postgres": (int(urlsplit(stack.dsn).port or 0), 0),
            "relay": (relay.port, 0),
        }
        proxies = {
            name: await closing.enter_async_context(Proxy("127.0.0.1", target, port=port))
            for name, (target, port) in servers.items()
        }
        database = urlsplit(stack.dsn)
        proxied = f"{database.netloc.rpartition('@')[0]}@127.0.0.1:{proxies['postgres'].port}"
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka_port}",
            "DATABASE_URL": database._replace(netloc=proxied).geturl(),
            "KAFKA_TOPIC": "chaos", "SINK_SCHEMA": "chaos", "SINK_GROUP": "chaos", "LOCAL_DIR": str(folder),
        }  # fmt: skip
        deployment = Deployment(environment, folder, Look(lambda: stack.dsn))  # type: ignore[arg-type] # all that is used
        closing.callback(deployment.close)
        yield Site(stack, relay, oracle, deployment, proxies)
