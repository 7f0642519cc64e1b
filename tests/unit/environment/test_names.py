"""Names that others put into the environment are let pass, for every prefix of ours; mistyped ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.environment.names import OUR_PREFIXES, Owner, distance, forget_fausts, mistyped, neighbours, owner_of
from streams.errors import SettingsError
from streams.settings import load_settings, names_of_neighbours, setting_names

KNOWN = setting_names()

#: What Kubernetes injects for a service NAME, and docker for a linked container NAME.
LINKS = (
    "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_CLIENT", "SERVICE_PORT_HTTP_METRICS", "PORT", "PORT_9092_TCP",
    "PORT_9092_TCP_ADDR", "PORT_9092_TCP_PORT", "PORT_9092_TCP_PROTO", "PORT_53_UDP", "PORT_53_UDP_ADDR",
    "PORT_9000_TCP_START", "PORT_38412_SCTP", "NAME", "ENV_KAFKA_HEAP_OPTS", "ENV_PATH",
)  # fmt: skip
SERVICES = (
    "KAFKA", "KAFKA_0", "KAFKA_BROKER", "KAFKA_HEADLESS", "KAFKA_TOPIC", "WORKER", "WORKER_WEB", "RELAY", "RELAY_V2",
    "INGEST", "INGEST_WEB", "SINK", "SINK_GROUP", "BACKFILL", "LOCAL", "LOCAL_REGISTRY",
)  # fmt: skip
#: What stands in the .env of programs that run beside us.
COMPANIONS = {
    "indigo's relay": "RELAY_ADMIN_PASSWORD RELAY_REPLAY_WINDOW RELAY_PERSIST_DIR RELAY_LENIENT_SYNC_VALIDATION "
    "RELAY_INITIAL_SEQ_NUMBER RELAY_DISABLE_REQUEST_CRAWL RELAY_HOST_CONCURRENCY RELAY_DEFAULT_REPO_LIMIT "
    "RELAY_API_LISTEN RELAY_METRICS_LISTEN RELAY_IDENT_CACHE_SIZE RELAY_UPSTREAM_HOSTS RELAY_TRUSTED_DOMAINS",
    "apache/kafka": "KAFKA_NODE_ID KAFKA_PROCESS_ROLES KAFKA_LISTENERS KAFKA_ADVERTISED_LISTENERS KAFKA_HEAP_OPTS "
    "KAFKA_CONTROLLER_QUORUM_VOTERS KAFKA_CONTROLLER_LISTENER_NAMES KAFKA_LISTENER_SECURITY_PROTOCOL_MAP "
    "KAFKA_LOG_DIRS "
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR KAFKA_TRANSACTION_STATE_LOG_MIN_ISR KAFKA_NUM_PARTITIONS KAFKA_OPTS "
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR KAFKA_CLUSTER_ID",
    "cp-kafka": "KAFKA_BROKER_ID KAFKA_ZOOKEEPER_CONNECT KAFKA_INTER_BROKER_LISTENER_NAME KAFKA_LOG_RETENTION_HOURS "
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE KAFKA_JMX_PORT KAFKA_JMX_HOSTNAME KAFKA_MESSAGE_MAX_BYTES KAFKA_LOG4J_LOGGERS "
    "KAFKA_SSL_KEYSTORE_FILENAME KAFKA_SSL_KEY_CREDENTIALS KAFKA_SASL_ENABLED_MECHANISMS KAFKA_METRIC_REPORTERS "
    "KAFKA_SECURITY_INTER_BROKER_PROTOCOL KAFKA_DEFAULT_REPLICATION_FACTOR KAFKA_MIN_INSYNC_REPLICAS KAFKA_REST_PROXY",
    "bitnami": "KAFKA_CFG_NODE_ID KAFKA_KRAFT_CLUSTER_ID KAFKA_CLIENT_USERS KAFKA_CLIENT_PASSWORDS KAFKA_TLS_TYPE "
    "KAFKA_INTER_BROKER_USER KAFKA_CERTIFICATE_PASSWORD KAFKA_ENABLE_KRAFT",
    "kafka-ui, connect": "KAFKA_CLUSTERS_0_NAME KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS KAFKA_CONNECT_URL KAFKA_BROKERS "
    "KAFKA_SCHEMA_REGISTRY_URL KAFKA_CLIENT_ID KAFKA_GROUP_ID KAFKA_USERNAME KAFKA_VERSION KAFKA_HOME",
    "others": "WORKER_CONCURRENCY WORKER_COUNT WORKER_CLASS WORKER_TIMEOUT LOCAL_RANK LOCAL_WORLD_SIZE LOCAL_USER_ID "
    "LOCAL_DIRS INGEST_API_KEY SINK_URL BACKFILL_DB_POOL_SIZE REPLAY_URL BROKER_ID DATABASE_URI LOG_LEVELS",
}


@pytest.mark.parametrize("service", SERVICES)
def test_a_platforms_service_links_are_let_pass(service: str) -> None:
    for link in LINKS:
        name, value = f"{service}_{link}", {"PORT": "tcp://10.0.0.7:9092", "NAME": "/app/kafka"}.get(link, "9092")
        assert name in KNOWN or owner_of(name, value, KNOWN) == (Owner.OTHERS, ""), name


def test_a_service_that_is_called_as_a_setting_is_does_not_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the service worker-web Kubernetes sets WORKER_WEB_PORT, which is a setting of ours, to an address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_WEB_PORT", "tcp://10.0.0.8:80")
    monkeypatch.setenv("INGEST_WEB_PORT", "udp://[fd00::8]:80")
    assert (load_settings().worker_web_port, load_settings().ingest_web_port) == (6066, 6166)
    monkeypatch.setenv("WORKER_WEB_PORT", "http")
    with pytest.raises(SettingsError, match="WORKER_WEB_PORT"):
        load_settings()


@pytest.mark.parametrize("program", COMPANIONS)
def test_the_settings_of_a_program_beside_us_are_let_pass(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = COMPANIONS[program].split()
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("".join(f"{name}=hunter2\n" for name in names))
    assert mistyped(dict.fromkeys(names, "1"), KNOWN) == []
    assert load_settings().backfill_days == 0
    assert set(names_of_neighbours()) == {name for name in names if owner_of(name, "1", KNOWN)[0] is Owner.NEIGHBOURS}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("BACKFIL_DAYS", "BACKFILL_DAYS"), ("BACKFILL_DASY", "BACKFILL_DAYS"), ("BAKCFILL_DAYS", "BACKFILL_DAYS"),
        ("BACKFILL_BATCH_DELAY", "BACKFILL_BATCH_DELAY_MS"), ("BACKFILL_MEMORY_MB", "BACKFILL_MAX_MEMORY_MB"),
        ("BACKFILL_CONCURRENT", "BACKFILL_MAX_CONCURRENT"), ("BACKFILL_USEIDLE", "BACKFILL_USE_IDLE"),
        ("KAFKA_PARTITION", "KAFKA_PARTITIONS"), ("KAFKA_TOPICS", "KAFKA_TOPIC"), ("KAKFA_TOPIC", "KAFKA_TOPIC"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"), ("KAFKA_BOOTSTRAPSERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_SASL_MECHANISMS", "KAFKA_SASL_MECHANISM"), ("KAFKA_SASL_USER_NAME", "KAFKA_SASL_USERNAME"),
        ("KAFKA_SSL_CA_FILE", "KAFKA_SSL_CAFILE"), ("KAFKA_SSL_KEY_FILE", "KAFKA_SSL_KEYFILE"),
        ("KAFKA_RETENTION_HOUR", "KAFKA_RETENTION_HOURS"), ("KAFKA_SECURITY_PROTOKOL", "KAFKA_SECURITY_PROTOCOL"),
        ("RELAY_URI", "RELAY_URL"), ("RELAY_URLS", "RELAY_URL"), ("SINK_SHEMA", "SINK_SCHEMA"),
        ("INGEST_IDLE_SECOND", "INGEST_IDLE_SECONDS"), ("INGEST_BIND", "INGEST_WEB_BIND"),
        ("WORKER_IDS", "WORKER_ID"), ("WORKER_WEBPORT", "WORKER_WEB_PORT"), ("LOCAL_DIRR", "LOCAL_DIR"),
    ],
)  # fmt: skip
def test_a_name_near_ours_is_refused_with_it(wrong: str, right: str) -> None:
    assert owner_of(wrong, "1", KNOWN) == (Owner.MISTYPED, right)


def test_every_setting_is_missed_by_a_letter() -> None:
    """Whatever letter of a name is left out or doubled behind its first word is found, for each setting of ours."""
    for name in (name for name in KNOWN if name.startswith(OUR_PREFIXES)):
        for at in range(name.index("_") + 1, len(name)):
            for wrong in (name[:at] + name[at + 1 :], name[: at + 1] + name[at:]):
                assert wrong in KNOWN or owner_of(wrong, "1", KNOWN)[0] is Owner.MISTYPED, wrong


def test_distances() -> None:
    assert [distance("abc", other, 2) for other in ("abc", "acb", "ab", "xbc", "abcd", "cab", "xyz", "a")] == [
        0, 1, 1, 1, 1, 2, 3, 2,
    ]  # fmt: skip


def test_neighbours_are_named_without_platforms_links() -> None:
    given = dict.fromkeys(["KAFKA_NODE_ID", "KAFKA_PORT", "KAFKA_TOPIC", "PATH", "RELAY_ADMIN_PASSWORD"], "tcp://h:1")
    assert neighbours(given, KNOWN) == ["KAFKA_NODE_ID", "RELAY_ADMIN_PASSWORD"]


def test_what_faust_reads_at_its_import_is_forgotten() -> None:
    given = {"FAUST_LOOP": "uvloop", "F_DATADIR": "/x", "DJANGO_SETTINGS_MODULE": "a.b", "FOO": "1", "FAUSTIAN": "1"}
    forget_fausts(given)
    assert given == {"FOO": "1", "FAUSTIAN": "1"}
