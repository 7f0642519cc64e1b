"""The way to Kafka: address, TLS and password of every client, and the sentences for its refusals."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    CoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from streams.errors import BrokerError
from streams.runtime.waiting import SAY_EVERY
from streams.settings import Settings
from streams.text import printable

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How long the broker may be away at the start of a process, in seconds, before that is an error.
START_TIMEOUT: Final = 10.0
#: Milliseconds that one server has to say why it refuses us.
REFUSAL_MS: Final = 5_000
#: What comes out of aiokafka where a broker does not answer, or is starting; a TimeoutError is an OSError too.
_AWAY: Final = (
    KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError, NodeNotReadyError, CoordinatorNotAvailableError,
    OSError,
)  # fmt: skip
#: What it raises where a broker does not let us in.
_REFUSED: Final = (
    AuthenticationFailedError, AuthenticationMethodNotSupported,
    SaslAuthenticationFailed, UnsupportedSaslMechanismError,
)  # fmt: skip


def kafka_client_options(settings: Settings) -> dict[str, Any]:
    """Return the keyword arguments that every aiokafka client shares: address and security."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers(),
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = tls_context(settings)
    if settings.kafka_security_protocol.startswith("SASL") and settings.kafka_sasl_password is not None:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return options


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context of the KAFKA_SSL_ settings. Raises BrokerError if a file cannot be used."""
    name, file = "KAFKA_SSL_CAFILE", settings.kafka_ssl_cafile
    try:
        context = ssl.create_default_context(cafile=file)
        if settings.kafka_ssl_certfile is not None:
            name, file = "KAFKA_SSL_CERTFILE or KAFKA_SSL_KEYFILE", settings.kafka_ssl_certfile
            context.load_cert_chain(file, settings.kafka_ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise BrokerError(f"{name}: {file} cannot be used: {error.strerror or error}.") from None
    return context


@asynccontextmanager
async def admin_client(settings: Settings, timeout: float = START_TIMEOUT) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a connected admin client; wait ``timeout`` seconds for a broker that is away.

    A wait that is longer than a start may wait is logged once a minute. Raises BrokerError, with a sentence, if the
    broker stays away or refuses us.
    """
    admin = AIOKafkaAdminClient(**kafka_client_options(settings), request_timeout_ms=15_000)
    clock = asyncio.get_running_loop().time
    deadline, said = clock() + timeout, -math.inf
    try:
        while True:
            try:
                await admin.start()
                break
            except KafkaError as error:
                refusal = await _refusal(settings, error)
                if refusal is not None or not is_away(error) or clock() > deadline:
                    raise refusal or broker_error(settings, error) from None
                if timeout > START_TIMEOUT and clock() - said >= SAY_EVERY:
                    said = clock()
                    log.warning("%s Waiting for it.", broker_error(settings, error))
                await asyncio.sleep(0.5)
        yield admin
    finally:
        await admin.close()


def is_away(error: BaseException) -> bool:
    """Return whether the error means that the broker cannot be reached now, and may be later."""
    return isinstance(error, _AWAY)


async def asked(
    settings: Settings, question: Callable[[AIOKafkaAdminClient], Awaitable[T]], timeout: float = START_TIMEOUT
) -> T:
    """Ask the broker, and ask again while it is away, for ``timeout`` seconds. The question must bear a repetition.

    Raises BrokerError if the broker stays away or refuses us.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            async with admin_client(settings, timeout) as admin:
                return await question(admin)
        except KafkaError as error:
            if not is_away(error) or asyncio.get_running_loop().time() > deadline:
                raise broker_error(settings, error) from None
            log.info("Kafka went away (%s): asking again", type(error).__name__)
            await asyncio.sleep(0.5)


async def explained(settings: Settings, error: BaseException) -> BrokerError:
    """Return the error for a client that could not connect. The reason of a refusal costs one more connection."""
    return await _refusal(settings, error) or broker_error(settings, error)


async def _refusal(settings: Settings, error: BaseException) -> BrokerError | None:
    """Return the reason of the first server that refuses us; None if none does, or if the error says it already.

    aiokafka's bootstrap only logs what each server answered, and raises that it could not connect
    (``AIOKafkaClient.bootstrap``): a wrong password would look like a broker that is down.
    """
    if not is_away(error) or settings.kafka_security_protocol == "PLAINTEXT":
        return None
    options = kafka_client_options(settings)
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers")):
        try:
            (await create_conn(host, port, request_timeout_ms=REFUSAL_MS, **options)).close()
        except _REFUSED as refused:
            return broker_error(settings, refused)
        except ssl.SSLCertVerificationError as refused:
            return BrokerError(
                f"The certificate of Kafka at {host}:{port} is not trusted ({refused.verify_message})",
                "is KAFKA_SSL_CAFILE right, and are the servers named as the certificate names them?",
            )
        except (KafkaError, OSError):  # away, or it gives no reason
            continue
    return None


def broker_error(settings: Settings, error: BaseException) -> BrokerError:
    """Return the error for the operator: a Kafka error as a sentence."""
    where = settings.bootstrap_servers()
    if isinstance(error, UnsupportedSaslMechanismError):
        mechanism = settings.kafka_sasl_mechanism
        return BrokerError(
            f"Kafka at {where} refuses us", f"KAFKA_SASL_MECHANISM={mechanism} is none of its mechanisms."
        )
    if isinstance(error, _REFUSED):
        return BrokerError(
            f"Kafka at {where} refuses us",
            f"are KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD right ({printable(str(error), 300)})?",
        )
    if is_away(error) and settings.kafka_bootstrap_servers is None:
        return BrokerError(
            f"The embedded Kafka cannot be reached at {where}", "start it with `python -m streams.local up`."
        )
    if is_away(error):
        names = "KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL"
        if settings.kafka_security_protocol.endswith("SSL"):
            names += " (and KAFKA_SSL_CAFILE, and KAFKA_SSL_CERTFILE where it asks for our certificate)"
        return BrokerError(f"Kafka cannot be reached at {where}", f"is it up, and are {names} right?")
    return BrokerError(f"Kafka at {where} answered with an error: {error!r}.")
