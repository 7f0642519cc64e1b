"""Every setting, its value as it may be shown, and where it comes from. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal
from urllib.parse import unquote

import msgspec
from pydantic import SecretStr

from streams.environment.database_url import AddressError, parse
from streams.settings import PROFILES, Settings

SettingSource = Literal["environment", ".env", "profile", "default", "embedded stack"]

_HIDDEN: Final = "***"
#: A parameter of a URL's query whose name has one of these is secret. A file's name is not secret: its contents are.
_SECRET: Final = ("password", "token", "secret")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST: Final = r"(?:\[[^\]]*\]|[^:\[\],]*)(?::\d*)?"
#: A host, or several, with their ports.
_HOSTS: Final = re.compile(rf"{_HOST}(?:,{_HOST})*")
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
    value = as_shown(getattr(settings, name))
    if _has(environment, name):
        source: SettingSource = "environment"
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
    """Return True if the name is set there (in upper or lower case) and not empty, as the settings are read."""
    return any(key.lower() == name and value for key, value in names.items())


def as_shown(value: object) -> str | None:
    """Return a value as it may be shown."""
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


def redacted(url: str, hidden: str = _HIDDEN) -> str:
    """Return an address with ``hidden`` for its secrets, or without them. In doubt a part is hidden."""
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return _HIDDEN
    if scheme in ("postgresql", "postgres"):
        try:
            parse(url)
        except AddressError:  # the end of its secrets is not known
            return f"{scheme}://{_HIDDEN}"
    place, mark, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    login, at, hosts = authority.rpartition("@")
    query = "&".join(_parameters(query, hidden))
    # The end of a password that is not properly encoded is not known.
    if "@" in path + query or not _HOSTS.fullmatch(hosts):
        return f"{scheme}://{_HIDDEN}"
    user, colon, _ = login.partition(":")
    secret = f":{hidden}" if colon and hidden else ""
    return f"{scheme}://{user}{secret}{at}{hosts}{slash}{path}{mark if query else ''}{query}"


def _parameters(query: str, hidden: str) -> Iterator[str]:
    """Yield a query's parameters, the secret ones hidden or left out."""
    for pair in query.split("&"):
        name, equals, _ = pair.partition("=")
        if not any(word in unquote(name).lower() for word in _SECRET):
            yield pair
        elif hidden:
            yield f"{name}{equals}{hidden}"
