"""Every setting, its value as it may be shown, and where it comes from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from pydantic import SecretStr

from streams.settings import PROFILES, Settings

Source = Literal["environment", ".env", "profile", "default", "embedded stack"]

_HIDDEN: Final = "***"
#: What follows in a URL's query and is secret.
_SECRET_PARAMETERS: Final = frozenset({"password", "sslpassword", "passfile", "token"})
#: The settings that the embedded stack stands in for.
_EMBEDDED: Final = ("kafka_bootstrap_servers", "database_url")


class Shown(msgspec.Struct, frozen=True):
    """A setting: its name, its value (None: unset), and where that comes from."""

    name: str
    value: str | None
    source: Source


def shown_settings(
    settings: Settings,
    environment: Mapping[str, str],
    dotenv: Mapping[str, str | None],
    stack: Mapping[str, str] | None,
) -> list[Shown]:
    """All settings, in their order. ``stack``: what the embedded stack that is up stands in for."""
    return [_shown(settings, name, environment, dotenv, stack or {}) for name in Settings.model_fields]


def _shown(
    settings: Settings,
    name: str,
    environment: Mapping[str, str],
    dotenv: Mapping[str, str | None],
    stack: Mapping[str, str],
) -> Shown:
    value = as_shown(getattr(settings, name))
    if _has(environment, name):
        source: Source = "environment"
    elif _has(dotenv, name):
        source = ".env"
    elif name in _EMBEDDED and stack.get(name):
        value, source = redacted(stack[name]) if "://" in stack[name] else stack[name], "embedded stack"
    elif settings.backfill_profile is not None and name in PROFILES[settings.backfill_profile]:
        source = "profile"
    else:
        source = "default"
    return Shown(name.upper(), value, source)


def _has(names: Mapping[str, str | None], name: str) -> bool:
    """Whether it is set there: in any case, and not empty, as the settings are read."""
    return any(key.lower() == name and value for key, value in names.items())


def as_shown(value: object) -> str | None:
    """A value as it may be shown."""
    if value is None or value == ():
        return None
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        return redacted(text) if "://" in text else _HIDDEN
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return redacted(text) if "://" in text else text


def redacted(url: str) -> str:
    """An address without its password, wherever that stands; rather too much is hidden than too little."""
    scheme, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    place, mark, query = place.partition("?")
    if mark:
        pairs = [pair.partition("=") for pair in query.split("&")]
        query = "&".join(f"{k}{eq}{_HIDDEN if k.lower() in _SECRET_PARAMETERS else v}" for k, eq, v in pairs)
    return f"{scheme}://{user}{colon}{_HIDDEN if colon else ''}{at}{place}{mark}{query}"
