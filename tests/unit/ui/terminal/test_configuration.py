"""`config show`: every setting, without secrets, with its source."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from streams.settings import Settings, setting_names
from streams.ui.terminal.config import redacted, shown_settings


def shown(
    environment: dict[str, str] | None = None,
    dotenv: dict[str, str | None] | None = None,
    stack: dict[str, str] | None = None,
    **settings: object,
) -> dict[str, tuple[str | None, str]]:
    made = Settings(_env_file=None, **settings)  # type: ignore[arg-type, call-arg]
    return {row.name: (row.value, row.source) for row in shown_settings(made, environment or {}, dotenv or {}, stack)}


def test_every_setting_is_there_in_order() -> None:
    assert list(shown()) == setting_names()


def test_sources() -> None:
    found = shown(
        environment={"kafka_topic": "a", "SINK_GROUP": "", "OTHER": "x"},
        dotenv={"KAFKA_TOPIC": "b", "SINK_SCHEMA": "c", "LOG_LEVEL": None},
        stack={"kafka_bootstrap_servers": "127.0.0.1:1", "database_url": "postgresql://u:secret@h:5/d"},
        kafka_topic="a", sink_schema="c", backfill_profile="aggressive", backfill_batch_size=7,
    )  # fmt: skip
    assert found["KAFKA_TOPIC"] == ("a", "environment")  # before .env, in any case
    assert found["SINK_SCHEMA"] == ("c", ".env")
    assert found["SINK_GROUP"] == ("backfill", "default")  # empty is unset
    assert found["LOG_LEVEL"] == ("info", "default")
    assert found["BACKFILL_MAX_MEMORY_MB"] == ("2048", "profile")
    assert found["BACKFILL_USE_IDLE"] == ("true", "profile")
    assert found["KAFKA_BOOTSTRAP_SERVERS"] == ("127.0.0.1:1", "embedded stack")
    assert found["DATABASE_URL"] == ("postgresql://u:***@h:5/d", "embedded stack")
    assert found["KAFKA_SASL_PASSWORD"] == (None, "default")
    assert found["BACKFILL_COLLECTIONS"] == (None, "default")


def test_one_setting_overrides_its_profile() -> None:
    found = shown(environment={"BACKFILL_BATCH_SIZE": "7"}, backfill_profile="balanced", backfill_batch_size=7)
    assert found["BACKFILL_BATCH_SIZE"] == ("7", "environment")
    assert found["BACKFILL_BATCH_DELAY_MS"] == ("500", "profile")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@host/db",
        "postgresql://user:hunter2@@host/db",
        "postgresql://user:a/hunter2@host/db",
        "postgresql://host/db?user=u&password=hunter2&sslmode=require",
        "wss://user:hunter2@relay.example/xrpc",
        "postgresql://user:a?hunter2@host/db",
        "postgresql://user:12/hunter2@host/db",
        "postgresql://user:12?hunter2@host/db",
        "postgresql://user:a#hunter2@host/db",
        "postgresql://user:a%40hunter2@[::1]:5432/db",
        "postgresql://host/db?password=s3@hunter2",
        "postgresql://host:5432/db?user=u&password=hunter2@s3&sslmode=require",
        "postgresql://user:x@host/db?p%61ssword=hunter2",
        "postgresql://one:5432,two:5433/db?sslpassword=hunter2",
        "postgresql://host?PASSWORD=hunter2",
        "wss://relay.example/xrpc?access_token=hunter2",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    assert "hunter2" not in redacted(url)
    assert "hunter2" not in redacted(url, hidden="")


@pytest.mark.parametrize(
    ("url", "shown", "without"),
    [
        ("postgresql://u:x@h:1/d", "postgresql://u:***@h:1/d", "postgresql://u@h:1/d"),
        ("postgresql://u:x@[::1]:1/d", "postgresql://u:***@[::1]:1/d", "postgresql://u@[::1]:1/d"),
        ("postgresql://u:x@a:1,b:2/d", "postgresql://u:***@a:1,b:2/d", "postgresql://u@a:1,b:2/d"),
        ("postgresql://h/d?user=u&password=s3%40x", "postgresql://h/d?user=u&password=***", "postgresql://h/d?user=u"),
        ("postgresql://h/d?password=x", "postgresql://h/d?password=***", "postgresql://h/d"),
        ("postgresql://u:a/b@h/d", "postgresql://***", "postgresql://***"),
    ],
)
def test_what_is_left_of_an_address(url: str, shown: str, without: str) -> None:
    assert (redacted(url), redacted(url, hidden="")) == (shown, without)


@pytest.mark.parametrize("password", ["hunter2", "a://hunter2", "wss://hunter2", "postgresql://hunter2"])
def test_secrets_are_not_in_what_is_shown(password: str) -> None:
    secret = SecretStr(password)
    found = shown(kafka_security_protocol="SASL_SSL", kafka_sasl_username="me", kafka_sasl_password=secret,
                  database_url=SecretStr("postgresql://u:hunter2@h/d"))  # fmt: skip
    assert "hunter2" not in repr(found)
    assert found["KAFKA_SASL_PASSWORD"][0] == "***"


def test_an_address_without_a_secret_stays_as_it_is() -> None:
    for url in (
        "postgresql://user@host:5432/db?sslmode=require", "wss://relay.example/xrpc/a.b", "wss://[::1]:80/",
        "postgresql:///db?host=/run/postgresql&passfile=/etc/pgpass", "postgresql://me%40corp@one,two:5433/db",
    ):  # fmt: skip
        assert redacted(url) == redacted(url, hidden="") == url
