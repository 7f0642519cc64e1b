"""What Faust asks a broker while a worker starts or is rebalanced is asked until it is answered."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, cast

import faust
import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from faust.exceptions import NotReady, ProducerSendError
from faust.tables.manager import TableManager as FaustsTableManager
from faust.tables.recovery import Recovery as FaustsRecovery
from faust.tables.recovery import ServiceStopped
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Producer as FaustsProducer
from mode.worker import Worker as ModesWorker

from streams.agents import make_app
from streams.settings import Settings
from streams.worker import persistence, transport
from streams.worker.faust_worker import Worker
from streams.worker.fetching import FetchThread
from streams.worker.persistence import Producer, Recovery, TableManager, until_answered
from tests.support.patience import PATIENCE


class Service:
    should_stop = False


class Broker:
    """Gives what is planned, one after the other: an error is raised."""

    def __init__(self, *plan: BaseException | str) -> None:
        self.plan = list(plan)

    async def __call__(self, *_: Any, **__: Any) -> str:
        await asyncio.sleep(0)
        first = self.plan.pop(0)
        if isinstance(first, BaseException):
            raise first
        return first


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "RETRY_SECONDS", 0.001)


AWAY: list[BaseException] = [
    KafkaConnectionError("refused"), KafkaTimeoutError("no answer"), RequestTimedOutError("no answer"),
    NodeNotReadyError("down"), ConnectionResetError("reset"), TimeoutError(), asyncio.CancelledError(),
]  # fmt: skip


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
async def test_a_broker_that_is_away_is_asked_again(error: BaseException) -> None:
    broker = Broker(error, error, "answer", "not asked for")
    assert await until_answered(broker, Service()) == "answer"
    assert broker.plan == ["not asked for"]


@pytest.mark.parametrize(
    "error", [TopicAuthorizationFailedError("no"), ValueError("a bug")], ids=lambda e: type(e).__name__
)
async def test_what_no_waiting_mends_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        await until_answered(Broker(error), Service())


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
async def test_the_wait_ends_quietly_with_the_service(error: BaseException) -> None:
    service = Service()
    service.should_stop = True
    with pytest.raises(asyncio.CancelledError):
        await until_answered(Broker(error), service)


async def test_its_own_cancellation_ends_it() -> None:
    never: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        return await never

    task = asyncio.create_task(until_answered(ask, Service()))
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait({task})
    assert task.cancelled()


def _app() -> faust.App:
    app = make_app(Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:9"))  # type: ignore[call-arg]
    app.finalize()
    return app


async def test_a_worker_has_all_of_it() -> None:
    app = _app()
    assert isinstance(app.producer, Producer)
    assert isinstance(app.tables, TableManager)
    assert isinstance(app.tables.recovery, Recovery)
    assert not app.conf.topic_allow_declare, "Faust would make its topics in the middle of its start"
    assert transport.Transport.Producer is Producer


def _wrapped(error: Exception) -> ProducerSendError:
    try:
        raise ProducerSendError("while sending") from error
    except ProducerSendError as raised:
        return raised


@pytest.mark.parametrize("error", AWAY[:4], ids=lambda error: type(error).__name__)
async def test_a_value_is_sent_when_the_broker_is_back(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(_wrapped(error), _wrapped(error), "the future")
    monkeypatch.setattr(FaustsProducer, "send", lambda _, *a, **o: broker(*a, **o))
    assert await _app().producer.send("topic", b"k", b"v", None, None, None) == "the future"


@pytest.mark.parametrize(
    "error", [_wrapped(MessageSizeTooLargeError("8 MB")), NotReady("not started")], ids=["too large", "not started"]
)
async def test_a_value_that_cannot_be_sent_costs_itself(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(error)
    monkeypatch.setattr(FaustsProducer, "send", lambda _, *a, **o: broker(*a, **o))
    future: Any = await _app().producer.send("topic", b"k", b"v", None, None, None)
    assert isinstance(future.exception(), (MessageSizeTooLargeError, NotReady))


async def test_a_rebalance_does_not_wait_for_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "FLUSH_SECONDS", 0.01)

    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(FaustsProducer, "flush", never)
    async with asyncio.timeout(PATIENCE):
        await _app().producer.flush()


async def test_a_recovery_has_no_time_limit() -> None:
    """Faust's own ends after its limit, and the worker stands. If the first half fails, Faust has mended that."""
    app = _app()
    slow: Callable[[], Any] = lambda: asyncio.sleep(0.05)  # noqa: E731
    with pytest.raises(ServiceStopped):
        await FaustsRecovery(app, app.tables)._wait(slow(), timeout=0.001)
    await app.tables.recovery._wait(slow(), timeout=0.001)


def test_faust_asks_with_what_we_override() -> None:
    """These are private to Faust: whoever upgrades it must look again (docs/gotchas.md)."""
    assert "self._wait(" in inspect.getsource(FaustsRecovery._restart_recovery.fun)
    assert ".highwaters(" in inspect.getsource(FaustsRecovery._build_highwaters)
    assert ".earliest_offsets(" in inspect.getsource(FaustsRecovery._build_offsets)
    [first, *rest] = inspect.getsource(FaustsTableManager.on_start).split("await ")[1:]
    assert first.startswith("self.sleep(1.0)")
    assert [call.split()[0] for call in rest] == ["self._update_channels()", "self.recovery.start()"]
    assert "await asyncio.sleep(1.0)" in inspect.getsource(ModesWorker._sentinel_task)
    assert "self._sentinel_task()" in inspect.getsource(ModesWorker._shutdown_loop)


async def test_the_tables_are_registered_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def note(name: str) -> Callable[[], Any]:
        async def noted() -> None:
            called.append(name)

        return noted

    tables = _app().tables
    monkeypatch.setattr(tables, "_update_channels", note("channels"))
    monkeypatch.setattr(tables.recovery, "start", note("recovery"))
    with pytest.raises(StopIteration):
        tables.on_start().send(None)
    assert called == ["channels", "recovery"]


def test_the_end_waits_for_what_was_cancelled() -> None:
    ends: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ends.append("over")

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin())
    task.cancel()
    loop.run_until_complete(Worker._sentinel_task(cast(Any, None)))
    loop.close()
    assert ends == ["over"]


@pytest.mark.parametrize("stopping", [True, False])
async def test_a_thread_does_not_end_by_a_cancellation(stopping: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of a thread it would be a traceback: one that is told to stop while it connects goes to its end."""

    class Thread(FetchThread):
        should_stop = stopping

        def __init__(self) -> None:
            """Nothing runs."""

    async def cancelled(_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(AIOKafkaConsumerThread, "on_start", cancelled)
    if stopping:
        await Thread().on_start()
    else:
        with pytest.raises(asyncio.CancelledError):
            await Thread().on_start()
