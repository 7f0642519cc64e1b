"""Every setting, its value as it may be shown, and where it comes from. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from pydantic import SecretStr

from streams.environment.database_url import parse
from streams.environment.relay_address import relay_address
from streams.settings import PROFILES, Settings

SettingSource = Literal["environment", ".env", "profile", "default", "embedded stack"]

_HIDDEN: Final = "***"
#: A parameter of a URL's query that is secret by its name, or may be. A file's name is not secret: its contents are.
_SECRET: Final = re.compile(r"^([^=]*(?:password|token|secret|%)[^=]*=).*", re.IGNORECASE)
#: The settings that are addresses, and how the addresses of each scheme are checked.
_ADDRESSES: Final = ("database_url", "relay_url")
_CHECKS: Final = {"postgresql": parse, "postgres": parse, "ws": relay_address, "wss": relay_address}
#: The settings whose value the embedded stack provides.
_EMBEDDED: Final = ("kafka_bootstrap_servers", "database_url")


class Shown(msgspec.Struct, frozen=True):
    """A setting: its name, its value (None: unset), and where that comes from."""

    name: str
    value: str | None
    source: SettingSource


def shown_settings(
    settings: Settings,
    environment: Mapping[str, str],
    dotenv: Mapping[str, str | None],
    stack: Mapping[str, str] | None,
) -> list[Shown]:
    """Return all settings, in their order. ``stack``: the settings that the running embedded stack replaces."""
    return [_shown_setting(settings, name, environment, dotenv, stack or {}) for name in Settings.model_fields]


def _shown_setting(
    settings: Settings,
    name: str,
    environment: Mapping[str, str],
    dotenv: Mapping[str, str | None],
    stack: Mapping[str, str],
) -> Shown:
    value = as_shown(settings, name)
    if _has(environment, name):
        source: SettingSource = "environment"
    elif _has(dotenv, name):
        source = ".env"
    elif name in _EMBEDDED and stack.get(name):
        value, source = redacted(stack[name]) if name in _ADDRESSES else stack[name], "embedded stack"
    elif settings.backfill_profile is not None and name in PROFILES[settings.backfill_profile]:
        source = "profile"
    else:
        source = "default"
    return Shown(name.upper(), value, source)


def _has(names: Mapping[str, str | None], name: str) -> bool:
    """Return True if the name is set there (in upper or lower case) and not empty, as the settings are read."""
    return any(key.lower() == name and value for key, value in names.items())


def as_shown(settings: Settings, name: str) -> str | None:
    """Return the value of a setting as it may be shown."""
    value = getattr(settings, name)
    if value is None or value == ():
        return None
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if name in _ADDRESSES:
        return redacted(text)
    if isinstance(value, SecretStr):
        return _HIDDEN
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return text.lower() if isinstance(value, bool) else text


def redacted(url: str, hidden: str = _HIDDEN) -> str:
    """Return an address with ``hidden`` for its secrets, or without them. One that is not valid is hidden."""
    scheme, _, rest = url.partition("://")
    if scheme not in _CHECKS:
        return _HIDDEN
    try:
        _CHECKS[scheme](url)
    except ValueError:  # the end of its secrets is not known
        return f"{scheme}://{_HIDDEN}"
    place, mark, query = rest.partition("?")
    login, at, path = place.rpartition("@")
    user, colon, _ = login.partition(":")
    secret = f":{hidden}" if colon and hidden else ""
    query = "&".join(_SECRET.sub(rf"\1{hidden}", p) for p in query.split("&") if hidden or not _SECRET.match(p))
    return f"{scheme}://{user}{secret}{at}{path}{mark if query else ''}{query}"
