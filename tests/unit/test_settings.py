"""The settings: names and defaults of the existing service, profiles, refusals, secrets."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from streams.environment.names import mistyped
from streams.errors import SettingsError
from streams.settings import PROFILES, Settings, load_settings, setting_names

#: The existing service's variables, with their defaults: they may never change.
EXISTING = {
    "BACKFILL_DAYS": 0,
    "RELAY_URL": "wss://bsky.network/xrpc/com.atproto.sync.subscribeRepos",
    "DATABASE_URL": None,
    "WORKER_ID": 0,
    "BACKFILL_BATCH_SIZE": 5,
    "BACKFILL_BATCH_DELAY_MS": 2000,
    "BACKFILL_MAX_CONCURRENT": 2,
    "BACKFILL_MAX_MEMORY_MB": 512,
    "BACKFILL_USE_IDLE": True,
}
THROTTLE = [name for name in EXISTING if name.startswith("BACKFILL_") and name != "BACKFILL_DAYS"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def value(settings: Settings, name: str) -> object:
    return getattr(settings, name.lower())


@pytest.mark.parametrize("name", EXISTING)
def test_defaults_of_the_existing_service(name: str) -> None:
    assert value(load_settings(), name) == EXISTING[name]


def test_defaults_of_the_topic_and_the_sink() -> None:
    settings = load_settings()
    assert (settings.kafka_topic, settings.kafka_partitions) == ("firehose.events", 8)
    assert (settings.sink_schema, settings.sink_group, settings.cursor_service) == ("firehose", "backfill", "backfill")
    assert settings.memory_bytes == 512 * 1024 * 1024


def test_another_group_has_its_own_cursor() -> None:
    assert load_settings(sink_group="audit").cursor_service == "backfill:audit"


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


# -- profiles
def test_background_is_the_default() -> None:
    unset, background = load_settings(), load_settings(backfill_profile="background")
    assert [value(unset, name) for name in THROTTLE] == [value(background, name) for name in THROTTLE]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_sets_all_five(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_PROFILE", profile)
    assert sorted(PROFILES[profile]) == sorted(name.lower() for name in THROTTLE)
    assert {name: value(load_settings(), name) for name in PROFILES[profile]} == PROFILES[profile]


def test_a_single_setting_overrides_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_PROFILE", "unlimited")
    monkeypatch.setenv("BACKFILL_BATCH_SIZE", "7")
    settings = load_settings()
    assert (settings.backfill_batch_size, settings.backfill_batch_delay_ms) == (7, 0)


# -- where values come from
def test_environment_before_dotenv_before_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("BACKFILL_PROFILE=balanced\nBACKFILL_DAYS=3\nBACKFILL_BATCH_SIZE=9\nUNRELATED=1\n")
    monkeypatch.setenv("BACKFILL_DAYS", "-1")
    settings = load_settings()
    assert (settings.backfill_days, settings.backfill_batch_size, settings.backfill_max_concurrent) == (-1, 9, 4)


def test_a_command_line_wins_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_DAYS", "2")
    assert load_settings(backfill_days=5).backfill_days == 5
    assert load_settings(backfill_days=None).backfill_days == 2


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_ID", "")
    assert load_settings().worker_id == 0


# -- refusals
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("BACKFILL_DAY", "BACKFILL_DAYS"),
        ("BACKFILL_BATCHSIZE", "BACKFILL_BATCH_SIZE"),
        ("RELAY_URI", "RELAY_URL"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("SINK_SHEMA", "SINK_SCHEMA"),
        ("INGEST_COLLECTION", "INGEST_COLLECTIONS"),
        ("WORKER_IDS", "WORKER_ID"),
    ],
)
def test_a_mistyped_name_is_refused_with_the_nearest(wrong: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert difflib.get_close_matches(wrong, setting_names(), n=1)
    monkeypatch.setenv(wrong, "1")
    with pytest.raises(SettingsError, match=rf"unknown setting {wrong}: did you mean {right}\?") as refusal:
        load_settings()
    assert refusal.value.exit_code == 2


def test_a_mistyped_name_in_dotenv_is_refused() -> None:
    Path(".env").write_text("BACKFILL_DASY=3\n")
    with pytest.raises(SettingsError, match="BACKFILL_DAYS"):
        load_settings()


def test_all_mistyped_names_are_told_at_once() -> None:
    assert (
        len(mistyped(dict.fromkeys(["BACKFILL_DASY", "KAFKA_TOPICS", "PATH", "BACKFILL_DAYS"], "1"), setting_names()))
        == 2
    )


def test_names_of_others_are_let_pass() -> None:
    assert (
        mistyped(
            dict.fromkeys(["KAFKA_HEAP_OPTS", "KAFKA_CFG_NODE_ID", "LOG_LEVEL", "HOME", "DATABASE_URL"], "1"),
            setting_names(),
        )
        == []
    )


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("BACKFILL_DAYS", "-2"),
        ("BACKFILL_DAYS", "three"),
        ("BACKFILL_BATCH_SIZE", "0"),
        ("BACKFILL_BATCH_DELAY_MS", "-1"),
        ("BACKFILL_MAX_CONCURRENT", "0"),
        ("BACKFILL_USE_IDLE", "perhaps"),
        ("BACKFILL_PROFILE", "fast"),
        ("RELAY_URL", "ftp://bsky.network"),
        ("KAFKA_TOPIC", "a topic"),
        ("SINK_SCHEMA", 'public"; DROP TABLE records'),
        ("SINK_GROUP", "a group"),
        ("WORKER_WEB_PORT", "0"),
        ("INGEST_COLLECTIONS", "app.bsky.feed.post, what?"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_shown(name: str, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, bad)
    with pytest.raises(SettingsError, match=name) as refusal:
        load_settings()
    assert bad in str(refusal.value) or repr(bad) in str(refusal.value)
    assert "\n" not in str(refusal.value)


# -- secrets
def test_a_refused_database_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://user:hunter2@host/db")
    with pytest.raises(SettingsError, match="DATABASE_URL") as refusal:
        load_settings()
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_secrets_are_not_in_messages_of_other_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(SettingsError, match="KAFKA_SASL_USERNAME") as refusal:
        load_settings()
    assert "hunter2" not in str(refusal.value)


def test_secrets_are_not_in_the_settings_printed() -> None:
    settings = load_settings(database_url="postgresql://user:hunter2@host/db", kafka_sasl_password="hunter2")
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.database_dsn() == "postgresql://user:hunter2@host/db"


# -- patterns
def test_collections_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_COLLECTIONS", " app.bsky.feed.*, com.example.thing ,")
    assert load_settings().backfill_collections == ("app.bsky.feed.*", "com.example.thing")
    assert load_settings().ingest_collections == ()


def test_the_query_of_a_relay_url_is_dropped() -> None:
    assert load_settings(relay_url="ws://127.0.0.1:1/xrpc/x?cursor=5").relay_url == "ws://127.0.0.1:1/xrpc/x"


# -- the embedded stack
def test_without_servers_the_sentence_says_what_to_do() -> None:
    settings = load_settings()
    with pytest.raises(SettingsError, match=r"KAFKA_BOOTSTRAP_SERVERS.*streams.local up"):
        settings.bootstrap_servers()
    with pytest.raises(SettingsError, match=r"DATABASE_URL.*streams.local up"):
        settings.database_dsn()


@pytest.mark.parametrize("given", ["wss://bsky.network", "wss://bsky.network/"])
def test_a_relay_without_a_path_gets_the_endpoint(given: str) -> None:
    """The AppView's own .env names its relay so."""
    assert load_settings(relay_url=given).relay_url == "wss://bsky.network/xrpc/com.atproto.sync.subscribeRepos"


def test_what_only_the_existing_service_knows_is_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_DB_POOL_SIZE", "2")
    monkeypatch.setenv("LOG_LEVEL", "INFO")
    assert load_settings().log_level == "info"


@pytest.mark.parametrize("given", ["wss://host:99999", "wss://host:abc", "wss://bsky..network", "wss://[::1", "wss://"])
def test_a_relay_that_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match=r"RELAY_URL: .*(wss://HOST|ws://\[::1\])"):
        load_settings(relay_url=given)
