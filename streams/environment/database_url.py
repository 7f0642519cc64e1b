"""DATABASE_URL as people and providers write it, read into an ``Address``. Pure.

An address is a URL of libpq: ``postgresql://user:password@host:port/database?word=value``. Where a reader could err
about where the password ends it is refused, and the sentence says which character to write how. No sentence of this
module repeats anything of the address but the names of well-formed words: all else may be a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from streams.environment.database_words import DRIVER, INSTEAD, OURS, SSL, VALUES, is_passed_over

FORM: Final = "postgresql://user:password@host:port/database"
DEFAULT_PORT: Final = 5432

_SCHEMES: Final = ("postgresql", "postgres")
#: Characters that end a part of a URL, or that no URL holds: in a user or a password they are written otherwise.
_ESCAPED: Final = {character: f"%{ord(character):02X}" for character in "/?#[]@ "}
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}")
_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,62}")
_HOST: Final = re.compile(r"[^\s:/?#\[\]@%{}<>\"'\\$,;()*!|^`=&+~]+")
_SOCKET: Final = re.compile(r"[/@][^\x00-\x1f]+")
_IPV6: Final = re.compile(r"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\](?::(\d*))?")


class AddressError(ValueError):
    """The address cannot be used. The text is one sentence that says how to write it, and holds no secret."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text}.")


@dataclass(frozen=True)
class Address:
    """Where a database is, and how to connect to it. None: the driver's default, as libpq's."""

    hosts: tuple[tuple[str, int], ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    #: sslmode as it was written; ``no-verify`` is node-postgres' word for TLS with whatever certificate.
    sslmode: str | None = None
    sslrootcert: str | None = None
    channel_binding: str | None = None
    #: Words that the driver understands itself.
    driver: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Seconds; None where nothing, or no limit, is asked for.
    connect_timeout: float | None = None
    application_name: str | None = None
    #: Settings of the session that the user asks for, from ``options``.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: What else is in ``options``: for a pooler, which looks there for the database that is meant.
    startup_options: str | None = None

    @property
    def reached(self) -> list[tuple[str, int]]:
        """The hosts and ports; a socket, or no host, is this machine."""
        hosts = [("localhost" if _SOCKET.fullmatch(host) else host, port) for host, port in self.hosts]
        return hosts or [("localhost", DEFAULT_PORT)]

    @property
    def place(self) -> str:
        """Where the database is, for messages: no user, no password."""
        hosts = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.hosts)
        return f"{hosts or f'localhost:{DEFAULT_PORT}'}{'' if self.database is None else f'/{self.database}'}"


def clean(text: str) -> str:
    """The address without what surrounds it by mistake: spaces, quotes, the name of another language's driver."""
    text = text.strip()
    for quote in "\"'":
        if len(text) >= 2 and text[0] == text[-1] == quote:
            text = text[1:-1].strip()
    text = text.removeprefix("jdbc:")
    scheme, separator, rest = text.partition("://")
    name, plus, driver = scheme.lower().partition("+")
    if separator and name in _SCHEMES and (not plus or driver.isalnum()):
        return f"{name}://{rest}"
    return text


def parse(text: str) -> Address:
    """Read an address. Raises AddressError."""
    scheme, separator, rest = clean(text).partition("://")
    if not separator or scheme not in _SCHEMES:
        raise AddressError(f"a database's address begins with postgresql:// and reads {FORM}")
    _check_characters(rest)
    login, at, rest = rest.rpartition("@")
    if at:
        _check_login(login)
    if "#" in rest:
        raise AddressError("it holds a #, which is written %23 in an address")
    if " " in rest:
        raise AddressError("it holds a space, which is written %20 in an address")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    user, colon, password = login.partition(":")
    words = _words(query)
    hosts = _hosts(authority)
    if "host" in words or "port" in words:
        hosts = _hosts_of_words(words.pop("host", None), words.pop("port", None), hosts)
    database = words.pop("dbname", words.pop("database", _decoded(path) if path else None))
    return _with_words(
        words,
        hosts=hosts,
        user=words.pop("user", _decoded(user) if user else None),
        password=words.pop("password", _decoded(password) if colon and password else None),
        database=database or None,
    )


def _check_characters(rest: str) -> None:
    if any(ord(character) < 32 or ord(character) == 127 for character in rest):
        raise AddressError("it holds a control character (a line's end, a tab): leave it out, or write it with %")
    try:
        rest.encode()
    except UnicodeEncodeError:
        raise AddressError("it is not UTF-8: write the characters that are not ASCII with %") from None
    if _PERCENT.search(rest):
        raise AddressError("it holds a % that begins no code of two hexadecimal digits: write it %25")


def _check_login(login: str) -> None:
    found = [f"{'a space' if c == ' ' else c} as {code}" for c, code in _ESCAPED.items() if c in login]
    if found:
        raise AddressError(f"in the user and the password (and elsewhere in front of an @) write {', '.join(found)}")


def _decoded(text: str) -> str:
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise AddressError(
            "what is written with % in it is not UTF-8: write each byte of a character's UTF-8"
        ) from None
    if "\0" in decoded:
        raise AddressError("it holds %00, which Postgres takes nowhere")
    return decoded


def _words(query: str) -> dict[str, str]:
    """The query's words in small letters, and their values; the last one of a name counts."""
    found: dict[str, str] = {}
    secret = False
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        word = _decoded(name).lower()
        known = word in _KNOWN or word in INSTEAD or is_passed_over(word, _decoded(value))
        if not equals or not (known or _WORD.fullmatch(word)):
            raise AddressError("behind the ? stand words as name=value, with & between them; write others with %")
        if not known:
            # What follows a password in the query may be a piece of it.
            if secret:
                raise AddressError("behind the password stands no word that is known: write a & in a password as %26")
            raise AddressError(
                f"the word {word} is not known: leave it out (a setting is written options=-c%20NAME%3DVALUE)"
            )
        secret = secret or "password" in word
        found[word] = _decoded(value)
    return found


#: The words that are read here, besides those that are passed over.
_KNOWN: Final = frozenset((
    "host", "port", "user", "password", "dbname", "database", "ssl", "sslmode", "sslrootcert", "channel_binding",
    "connect_timeout", "application_name", "applicationname", "options", *DRIVER,
))  # fmt: skip


def _with_words(
    words: dict[str, str],
    *,
    hosts: tuple[tuple[str, int], ...],
    user: str | None,
    password: str | None,
    database: str | None,
) -> Address:
    """The address with what its other words say. Raises AddressError."""
    for word, value in words.items():
        if word in INSTEAD and not is_passed_over(word, value):
            raise AddressError(f"{word} cannot be kept: {INSTEAD[word]}")
        if word in VALUES and value not in VALUES[word]:
            raise AddressError(f"{word} is one of {', '.join(VALUES[word])}")
    settings, rest = _options(words.get("options", ""))
    sslmode, channel_binding = _tls(words)
    return Address(
        hosts=hosts, user=user, password=password, database=database,
        sslmode=sslmode, sslrootcert=words.get("sslrootcert") or None, channel_binding=channel_binding,
        driver={word: words[word] for word in DRIVER if words.get(word)},
        connect_timeout=_seconds(words.get("connect_timeout", "")),
        application_name=words.get("application_name") or words.get("applicationname") or None,
        settings=settings, startup_options=rest or None,
    )  # fmt: skip


def _tls(words: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The sslmode and the channel binding. Raises AddressError where they contradict each other."""
    mode = words.get("sslmode")
    if "ssl" in words and mode is None:
        mode = SSL.get(words["ssl"].lower())
        if mode is None:
            raise AddressError("ssl is true or false; better write sslmode")
    if words.get("sslrootcert") == "system":
        mode = mode or "verify-full"
        if mode != "verify-full":
            raise AddressError(
                "sslrootcert=system is kept with sslmode=verify-full only: else anybody's certificate would do"
            )
    binding = words.get("channel_binding")
    if binding == "require" and mode in ("disable", "no-verify"):
        raise AddressError(f"channel_binding=require cannot be kept with sslmode={mode}: write sslmode=verify-full")
    return mode, binding


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = int(text)
    except ValueError:
        raise AddressError("connect_timeout is a whole number of seconds") from None
    return float(seconds) if seconds > 0 else None


def _options(text: str) -> tuple[dict[str, str], str]:
    """The settings in libpq's ``options`` (-c name=value, --name=value), and the rest, which is for a pooler."""
    try:
        parts = shlex.split(text.replace("+", " "))
    except ValueError:
        raise AddressError("options holds a quote that does not end") from None
    settings: dict[str, str] = {}
    rest = []
    parts.reverse()
    while parts:
        part = parts.pop()
        setting = parts.pop() if part == "-c" and parts else part.removeprefix("-c").removeprefix("--")
        name, equals, value = setting.partition("=")
        name = name.replace("-", "_").lower()
        if not part.startswith("-"):
            rest.append(part)
        elif not equals or not _SETTING.fullmatch(name):
            raise AddressError("options holds settings as -c name=value (written -c%20name%3Dvalue)")
        elif name == "search_path":
            raise AddressError("search_path cannot be kept: set SINK_SCHEMA instead")
        elif name not in OURS:
            settings[name] = value
    return settings, " ".join(rest)


# -- hosts


def _hosts(authority: str) -> tuple[tuple[str, int], ...]:
    """The hosts and ports in front of the path; none where nothing stands there. Raises AddressError."""
    if not authority:
        return ()
    found = []
    for part in authority.split(","):
        if part.startswith("["):
            matched = _IPV6.fullmatch(part)
            if matched is None:
                raise AddressError("an IPv6 address is written [address]:port")
            found.append((matched[1], _port(matched[2])))
            continue
        host, _, port = part.partition(":")
        if not host and "," not in authority:
            return (("localhost", _port(port)),)
        found.append((_host(_decoded(host)), _port(port)))
    return tuple(found)


def _hosts_of_words(
    host: str | None, port: str | None, written: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    """``?host=a,b&port=1,2``; what is not said in the query is as it was written in front of it."""
    hosts = [_host(part.strip("[]")) for part in host.split(",")] if host else [name for name, _ in written]
    ports = [_port(part) for part in port.split(",")] if port else [number for _, number in written] or [DEFAULT_PORT]
    hosts = hosts or ["localhost"]
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts):
        raise AddressError("there are not as many ports as hosts")
    return tuple(zip(hosts, ports, strict=True))


def _host(name: str) -> str:
    if _SOCKET.fullmatch(name):
        return name
    try:
        if _HOST.fullmatch(name) or re.fullmatch(r"[0-9A-Fa-f:.]+(?:%\w+)?", name):
            name.encode("idna")
            return name
    except UnicodeError:
        pass
    raise AddressError(f"its host is not a valid host name: it reads {FORM}")


def _port(text: str | None) -> int:
    if not text:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise AddressError(f"its port is not a number from 1 to 65535: it reads {FORM}")
    return int(text)
