"""Every setting of the product, in one typed class; the field descriptions are the table of docs/settings.md.

Values come from the environment, then from a ``.env`` file in the working directory, then from
``BACKFILL_PROFILE``'s preset, then from the defaults. Besides, only CRASH_AT and MEMORY_HOG are read from the environment
(``runtime/drills.py``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from streams.environment.brokers import named_protocols, parse_servers
from streams.environment.database_url import clean, parse
from streams.environment.dotenv_file import read_dotenv
from streams.environment.names import is_service_link, mistyped, neighbours
from streams.environment.relay_address import ENDPOINT, relay_address
from streams.errors import SettingsError

DEFAULT_RELAY: Final = f"wss://bsky.network{ENDPOINT}"

#: More, about a century, is a mistake; and what is counted from it must fit into the formats' numbers.
MOST_DAYS: Final = 36_500

#: Presets of the throttle. A single setting overrides its preset.
PROFILES: Final[Mapping[str, Mapping[str, object]]] = {
    "background": {
        "backfill_batch_size": 5, "backfill_batch_delay_ms": 2000, "backfill_max_concurrent": 2,
        "backfill_max_memory_mb": 512, "backfill_use_idle": True,
    },
    "balanced": {
        "backfill_batch_size": 50, "backfill_batch_delay_ms": 500, "backfill_max_concurrent": 4,
        "backfill_max_memory_mb": 1024, "backfill_use_idle": True,
    },
    "aggressive": {
        "backfill_batch_size": 100, "backfill_batch_delay_ms": 100, "backfill_max_concurrent": 10,
        "backfill_max_memory_mb": 2048, "backfill_use_idle": True,
    },
    "unlimited": {
        "backfill_batch_size": 4000, "backfill_batch_delay_ms": 0, "backfill_max_concurrent": 2,
        "backfill_max_memory_mb": 1024, "backfill_use_idle": True,
    },
}  # fmt: skip

#: Other products' names of the levels: one .env may serve several.
_LEVELS: Final = {"trace": "debug", "verbose": "debug", "warn": "warning", "critical": "error", "fatal": "error"}

Patterns = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """The settings, one field each. The environment variable is the field's name in capitals."""

    #: No file of pydantic's: ``places`` reads ours. Settings(_env_file=None), as tests say it, is without that too.
    model_config = SettingsConfigDict(env_file=(), extra="ignore", frozen=True)
    #: Where the embedded servers were found: they are waited for there, also while they are down.
    _found: dict[str, str] = PrivateAttr(default_factory=dict)

    # -- what to take
    backfill_days: int = Field(
        0, ge=-1, le=MOST_DAYS, description="Days of firehose to replay: 0 is off, -1 is all that the relay keeps."
    )
    relay_url: str = Field(
        DEFAULT_RELAY,
        repr=False,  # a login may stand in it
        description="The relay's subscribeRepos endpoint (ws:// or wss://); scheme and path may be left out.",
    )
    backfill_collections: Patterns = Field(
        (),
        description="Collections to store, NSIDs separated by commas, `*` allowed; empty is all. Holds at the sink: a rebuild can widen it.",
    )
    ingest_collections: Patterns = Field(
        (),
        description="Collections to keep in the topic, in the same form; empty is all. What it drops is not in Kafka: only to save disk.",
    )
    worker_id: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        description="0 (or unset): this worker starts and watches the ingest. Any other number: it never does.",
    )

    # -- how hard to work
    backfill_profile: Literal["background", "balanced", "aggressive", "unlimited"] | None = Field(
        None,
        description="A preset of the five settings of the pace and the memory (BACKFILL_BATCH_SIZE to BACKFILL_USE_IDLE); each of them overrides it. Unset is the same as background.",
    )
    backfill_batch_size: int = Field(5, ge=1, le=1_000_000, description="Events a batch, while the delay holds.")
    backfill_batch_delay_ms: int = Field(
        2000, ge=0, le=86_400_000, description="Milliseconds from the end of a batch to the start of the next."
    )
    backfill_max_concurrent: int = Field(
        2, ge=1, le=64, description="Most batches (sink transactions) in flight at once, per worker process."
    )
    backfill_max_memory_mb: int = Field(512, ge=64, le=1 << 24, description="Most memory (RSS) of each process, in MB.")
    backfill_use_idle: bool = Field(
        True,
        description="The delay holds only while the machine is busy with other work; while it is idle batches grow and do not wait.",
    )

    # -- Kafka
    kafka_bootstrap_servers: str | None = Field(
        None, description="host:port, separated by commas. Unset: the embedded broker, if it is up."
    )
    kafka_topic: str = Field(
        "firehose.events", pattern=r"^[A-Za-z0-9._-]{1,249}$", description="The topic of the events."
    )
    kafka_partitions: int = Field(
        8,
        ge=1,
        le=1000,
        description="Partitions of the topic when it is created; afterwards the topic's own number counts.",
    )
    kafka_replication: int = Field(
        0, ge=0, le=2**15 - 1, description="Replication factor when the topic is created; 0 is min(3, brokers)."
    )
    kafka_retention_hours: int = Field(
        168,
        ge=-1,
        le=24 * MOST_DAYS,
        description="Hours that the topic keeps events when it is created; -1 is for ever.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the broker."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism."
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user.")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_ssl_cafile: Path | None = Field(
        None, description="File of the certificate authorities to trust; unset is the system's."
    )
    kafka_ssl_certfile: Path | None = Field(None, description="Our certificate, where the broker asks for one.")
    kafka_ssl_keyfile: Path | None = Field(None, description="Our certificate's key.")

    # -- Postgres
    database_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host:port/database, a / in a password as %2F (docs/operating.md). Unset: the embedded Postgres, if it is up.",
    )
    sink_schema: str = Field(
        "firehose", pattern=r"^[a-z_][a-z0-9_]{0,62}$", description="The Postgres schema that is filled."
    )
    sink_group: str = Field(
        "backfill",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="Consumer group: each has its own positions and its own row in firehose_cursor.",
    )

    # -- ingest
    ingest_idle_seconds: float = Field(
        10.0,
        gt=0,
        le=86_400,
        description="A relay that is connected and sends nothing for so long is at its head: the ingest ends (without --follow).",
    )

    ingest_busy_mb_per_s: float | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="MB a second that the ingest reads while the delay holds; more where the relay's window demands it. 0 means no limit. Unset: as much as the workers' settings can apply, at least 1.",
    )

    # -- surface
    worker_web_bind: str = Field("127.0.0.1", description="Address of the worker's web port.")
    worker_web_port: int = Field(
        6066, ge=1, le=65535, description="The worker's web port; the next free one is taken where it is in use."
    )
    ingest_web_bind: str = Field("127.0.0.1", description="Address of the ingest's web port.")
    ingest_web_port: int = Field(
        6166, ge=1, le=65535, description="The ingest's web port; the next free one is taken where it is in use."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Log lines for people or for machines; auto is console on a terminal, json otherwise."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is logged."
    )
    local_dir: Path = Field(Path(".local"), description="Folder of the embedded Kafka and Postgres: data, logs, state.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of values, the first before the others: the command line, the environment, the file."""
        read = places() if getattr(dotenv_settings, "env_file", None) is not None else (os.environ,)
        return init_settings, *(_Source(settings_cls, place) for place in read)

    @field_validator("backfill_collections", "ingest_collections", mode="before")
    @classmethod
    def _split_patterns(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("backfill_collections", "ingest_collections")
    @classmethod
    def _check_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not all(c.isalnum() or c in ".-*" for c in pattern) or not pattern.isascii():
                raise ValueError(f"{pattern!r} is not a valid NSID or NSID pattern (example: app.bsky.feed.*)")
        return value

    @field_validator("relay_url")
    @classmethod
    def _check_relay(cls, value: str) -> str:
        return relay_address(value)

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return _LEVELS.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _check_servers(cls, value: str | None) -> str | None:
        return None if value is None else parse_servers(value)

    @field_validator("database_url")
    @classmethod
    def _check_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        parse(value.get_secret_value())
        return SecretStr(clean(value.get_secret_value()))

    @model_validator(mode="before")
    @classmethod
    def _apply_profile(cls, values: Any) -> Any:  # noqa: ANN401 (pydantic's signature)
        if isinstance(values, dict):
            preset = PROFILES.get(str(values.get("backfill_profile") or ""), {})
            _check_protocol(values)
            return {**preset, **values}
        return values

    @model_validator(mode="after")
    def _check_sasl(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_sasl_username and self.kafka_sasl_password
        ):
            raise ValueError("KAFKA_SECURITY_PROTOCOL asks for KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
        return self

    # -- derived
    @property
    def cursor_service(self) -> str:
        """Return the ``service`` of our row in ``firehose_cursor``: the existing service's name, or our group's."""
        return "backfill" if self.sink_group == "backfill" else f"backfill:{self.sink_group}"

    @property
    def memory_bytes(self) -> int:
        """Return ``BACKFILL_MAX_MEMORY_MB`` in bytes."""
        return self.backfill_max_memory_mb * 1024 * 1024

    def bootstrap_servers(self) -> str:
        """Return the broker's addresses: the setting's, or the embedded broker's. Raises SettingsError without either."""
        return self.kafka_bootstrap_servers or self._embedded(
            "kafka_bootstrap_servers", "Kafka", "KAFKA_BOOTSTRAP_SERVERS"
        )

    def database_dsn(self) -> str:
        """Return the database's address: the setting's, or the embedded Postgres'. Raises SettingsError without either."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return self._embedded("database_url", "Postgres", "DATABASE_URL")

    def as_environment(self) -> dict[str, str]:
        """Return what was set or found, as environment variables for a child process. It holds secrets."""
        given = {name.upper(): _as_text(getattr(self, name)) for name in self.model_fields_set}
        return {name.upper(): address for name, address in self._found.items()} | given

    def _embedded(self, key: str, what: str, name: str) -> str:
        state = read_stack_state(self.local_dir) or {}
        if key in state:
            self._found[key] = state[key]
        if key not in self._found:
            raise SettingsError(
                f"No {what}",
                f"set {name} to your own, or start the embedded one with `make run` or `python -m streams.local up`.",
            )
        return self._found[key]


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_stack_state(local_dir: Path) -> dict[str, str] | None:
    """Return what ``streams.local`` wrote about the embedded stack that is up, or None.

    The file ``stack.json`` holds the settings that point at it (``kafka_bootstrap_servers``, ``database_url``) and exists
    only between up and down. Nobody checks that the servers answer: for one that was killed, the caller waits.
    """
    try:
        return {str(k): str(v) for k, v in json.loads((local_dir / "stack.json").read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return None


def setting_names() -> list[str]:
    """Return the names of the environment variables that are settings."""
    return [name.upper() for name in Settings.model_fields]


class _Source(EnvSettingsSource):
    """Settings from one place. Quotes that a tool left around a value are not part of it; a secret is taken as it is."""

    def __init__(self, settings_cls: type[BaseSettings], place: Mapping[str, str | None]) -> None:
        self._place = place
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        for name, value in self._place.items():
            if name.lower() in Settings.model_fields and value and not _is_text(value):
                raise SettingsError(f"{name.upper()} holds bytes that are not UTF-8.")
        values = ((name.lower(), value) for name, value in self._place.items() if value)
        return {
            name: value if _is_secret(name) else _bare(value)
            for name, value in values
            if not is_service_link(name.upper(), value)
        }


def _is_text(value: str) -> bool:
    """Return True if it can be encoded: Python keeps bytes that are not UTF-8 as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bare(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 2 and value[0] == value[-1] and value[0] in "\"'" else value


def _is_secret(name: str) -> bool:
    field = Settings.model_fields.get(name)
    return field is not None and "SecretStr" in str(field.annotation)


def _check_protocol(values: Mapping[str, object]) -> None:
    """Raise ValueError if the servers name another protocol than the setting: else the broker would look dead."""
    servers, protocol = values.get("kafka_bootstrap_servers"), str(values.get("kafka_security_protocol") or "PLAINTEXT")
    named = named_protocols(servers) if isinstance(servers, str) else set()
    if named and named != {protocol.upper()}:
        raise ValueError(
            f"KAFKA_BOOTSTRAP_SERVERS says {', '.join(sorted(named))}, and KAFKA_SECURITY_PROTOCOL is {protocol[:20]}: "
            f"set it to the same"
        )


def places() -> tuple[Mapping[str, str], Mapping[str, str | None]]:
    """Return the environment, and the content of the working directory's ``.env`` file. Raises SettingsError."""
    return os.environ, read_dotenv(Path.cwd() / ".env", setting_names())


def names_of_neighbours() -> list[str]:
    """Return the names in both places that begin like ours, but are another program's. Raises SettingsError."""
    return neighbours(_names_given(), setting_names())


def _names_given() -> dict[str, str | None]:
    environment, file = places()
    return {name.upper(): value for place in (file, environment) for name, value in place.items()}


def load_settings(**overrides: object) -> Settings:
    """Read the settings; ``overrides`` (by field name) win over everything, as a command line does.

    Raises SettingsError with one line for each problem. Secrets are not in it.
    """
    problems = mistyped(_names_given(), setting_names())
    if problems:
        raise SettingsError("; ".join(problems))
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("; ".join(_problem(e) for e in error.errors())) from None


def _problem(error: Any) -> str:  # noqa: ANN401 (pydantic's ErrorDetails)
    name = ".".join(str(part) for part in error["loc"]).upper()
    message = str(error["msg"]).removeprefix("Value error, ")
    given = str(error["input"])
    # An address may hold a password, or a token in its query.
    hidden = _is_secret(name.lower()) or not name or "@" in given
    hidden |= name == "RELAY_URL" and any(mark in given for mark in "?#")
    value = "" if hidden else f" (it is {given[:100]!r})"
    return f"{name}: {message}{value}" if name else message
