"""The Faust app: its agents take slices from the topic to Postgres. ``faust -A streams.agents worker``.

Importing it touches neither the broker nor the database, so that ``agents`` and ``tables`` can be listed anywhere.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import faust
from faust.cli.base import cli
from faust.types import StreamT
from mode import CrashingSupervisor

from streams.commands import COMMANDS
from streams.errors import SettingsError, StreamsError
from streams.kafka.client import tls_context
from streams.kafka.groups import group_id
from streams.kafka.topic import MAX_MESSAGE_BYTES
from streams.settings import Settings, load_settings
from streams.worker.app import StreamsApp, broker_urls, register_transport
from streams.worker.persistence import TableManager
from streams.worker.pipeline import Pipeline
from streams.worker.slice_schema import SliceSchema
from streams.worker.slices import Slice

if TYPE_CHECKING:
    from streams.worker.faust_worker import Worker

#: A broker's address for commands that only list: nothing connects to it.
NO_BROKER: Final = "127.0.0.1:9"


def credentials(settings: Settings) -> faust.auth.Credentials | None:
    """Return the KAFKA_ security settings as Faust's credentials. Raises BrokerError where a file cannot be read."""
    protocol = settings.kafka_security_protocol
    context = tls_context(settings) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        assert settings.kafka_sasl_password is not None
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


def _new_worker(app: StreamsApp, **options: Any) -> Worker:  # noqa: ANN401 (Faust's)
    """Return the process's worker. Imported here: no other command needs the web port, the sink and the transport."""
    from streams.worker.faust_worker import Worker  # noqa: PLC0415

    return Worker(app, **options)


def make_app(settings: Settings) -> StreamsApp:
    """Return the app of these settings. A prototype with these numbers survived five campaigns of crashes."""
    register_transport()
    try:
        servers = settings.bootstrap_servers()
    except SettingsError:
        servers = NO_BROKER  # the worker says so when it starts; nothing else needs one
    return StreamsApp(
        group_id(settings),
        env={},  # each of Faust's settings would be read from the environment too, over what stands here
        broker=broker_urls(servers),
        broker_credentials=credentials(settings),
        Worker=_new_worker,
        TableManager=TableManager,
        datadir=str(settings.local_dir / "faust"),
        consumer_auto_offset_reset="earliest",
        # A worker that is killed is replaced after the session; a rebalance waits this long for all to join.
        broker_session_timeout=10.0,
        # The others learn of it at their next heartbeat: with 3 s more the partitions took up to 15 s to move.
        broker_heartbeat_interval=1.0,
        broker_request_timeout=30.0,
        broker_rebalance_timeout=30.0,
        # When it expires the consumer deadlocks. The session guards against a dead worker, the stall
        # watchdog against a hung one.
        broker_max_poll_interval=86_400.0,
        broker_max_poll_records=4000,
        broker_commit_interval=2.0,
        consumer_max_fetch_size=512 * 1024,
        stream_buffer_maxsize=8,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        topic_partitions=settings.kafka_partitions,
        topic_replication_factor=1,  # the topic's own, once it is known
        topic_disable_leader=True,
        topic_allow_declare=False,  # the tables' changelogs are made by our checks (streams/worker/table_topics.py)
        producer_linger=0.05,
        producer_max_request_size=MAX_MESSAGE_BYTES,
        # Loopback, and a bare index: nothing that serves what is in tables.
        web_bind=settings.worker_web_bind,
        web_host=settings.worker_web_bind,
        web_port=settings.worker_web_port,
        web_tables_enabled=False,
        web_router_enabled=False,
        web_graph_enabled=False,
        web_stats_enabled=False,
        web_metrics_enabled=False,
    )


def _settings_or_exit() -> Settings:
    """Return the settings. Where they cannot be used, end with a sentence and exit code 2."""
    try:
        return load_settings()
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _app_or_exit(settings: Settings) -> StreamsApp:
    try:
        return make_app(settings)
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _add_commands() -> None:
    """Make our commands known to Faust; ``completion`` takes the place of Faust's, which would replace ours later."""
    import_module("faust.cli.completion")
    for command in COMMANDS:
        cli.add_command(command)


settings: Final = _settings_or_exit()
app: Final = _app_or_exit(settings)
app.pipeline = Pipeline(app, settings)
_add_commands()
firehose: Final[Any] = app.topic(settings.kafka_topic, schema=SliceSchema())


@app.agent(firehose, name="sink_postgres", concurrency=1, supervisor_strategy=CrashingSupervisor)
async def sink_postgres(stream: StreamT[Slice]) -> None:
    """Take slices from the topic to Postgres, each record exactly once."""
    events = cast(faust.Stream[Slice], stream).noack().events()
    pipeline = app.pipeline.running
    async for event in events:
        await pipeline.submit(event)
        del event  # a slice is a megabyte: not held while waiting
        await pipeline.wait_for_memory()
