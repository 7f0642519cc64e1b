"""Faust's requests to a broker while a worker starts or is rebalanced: repeated until they are answered.

Faust takes a broker that is away in such a moment for a crash, or gives up after ``broker_request_timeout`` and then
hangs. Here it waits. Nothing of this logs that the broker is away: ``streams/kafka/topic_guard.py`` does.
"""
# ruff: noqa: ANN401 (the overridden methods' own signatures)

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from aiokafka.errors import KafkaError
from faust.exceptions import NotReady, ProducerSendError
from faust.tables import manager, recovery
from faust.transport.drivers import aiokafka as driver

from streams.kafka.client import is_away

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds between two tries.
RETRY_SECONDS: Final = 0.5
#: Seconds that a rebalance waits for the tables' messages. Tables are for looking: a rebalance is more urgent.
FLUSH_SECONDS: Final = 3.0


class Stoppable(Protocol):
    """A service of the library mode."""

    @property
    def should_stop(self) -> bool:
        """True once it was stopped, or has crashed."""


async def until_answered(ask: Callable[[], Awaitable[T]], service: Stoppable) -> T:
    """Return the broker's answer; while the broker is away, ask again.

    Raises CancelledError where ``service`` stops meanwhile (mode ends a service quietly by it), and any other error.
    """
    while True:
        try:
            return await ask()
        except (KafkaError, OSError) as error:
            if not is_away(error):
                raise
            log.debug("Kafka is away: asking again (%r)", error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.debug("a request was cancelled together with its connection: asking again")
        if service.should_stop:
            raise asyncio.CancelledError
        await asyncio.sleep(RETRY_SECONDS)


def wait_at_bootstrap(client: Any, service: Stoppable) -> None:
    """Make the client's ``bootstrap``, with which a producer or a consumer starts, wait for a broker that is away."""
    bootstrap = client.bootstrap
    client.bootstrap = lambda: until_answered(bootstrap, service)


class Producer(driver.Producer):
    """Faust's producer, which sends the tables' changes. It never ends the worker."""

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        wait_at_bootstrap(producer.client, self)
        return producer

    async def send(self, *arguments: Any, **options: Any) -> Any:
        """Return the future of the message. Where the message cannot be sent, the future has the error."""
        try:
            return await until_answered(lambda: self._send(*arguments, **options), self)
        except (KafkaError, ProducerSendError, NotReady) as error:
            log.debug("a table's value was not sent: %r", error)
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    async def _send(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().send(*arguments, **options)
        except ProducerSendError as error:
            raise error.__cause__ or error from None

    async def flush(self) -> None:
        """Wait until what was sent is in Kafka, at most FLUSH_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await super().flush()


class Recovery(recovery.Recovery):
    """Faust's recovery of tables, which waits for a broker as long as it is away.

    Faust's own ends silently after a time-out, and the worker hangs.
    """

    async def _wait(self, coro: Any, timeout: Any = None) -> None:
        await super()._wait(coro)


class TableManager(manager.TableManager):
    """Faust's table manager, with our recovery.

    Faust's own waits a second before it registers the tables, so that agents can declare more of them. All of ours are
    declared when the app is imported.
    """

    async def on_start(self) -> None:
        """Register the tables and begin their recovery."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()

    @property
    def recovery(self) -> recovery.Recovery:
        """The recovery of its tables."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


Producer.logger = driver.logger  # mode would use our logger for its own lines
Recovery.logger = recovery.logger
TableManager.logger = manager.TableManager.logger
