"""``KAFKA_BOOTSTRAP_SERVERS`` as people write it: with a scheme, as a list, with brackets, quotes, spaces. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

FORM: Final = "host:9092, or several with commas: host1:9092,host2:9092"
DEFAULT_PORT: Final = 9092
#: The protocols that an address may name, as listeners of Kafka do.
_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
#: Schemes that name Kafka and no protocol.
_SCHEMES: Final = ("KAFKA", "TCP")
_SPLIT: Final = re.compile(r"[,;\s]+")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://(.*)", re.DOTALL)
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
#: Around an address or the whole list: a JSON list's, and quotes that a tool did not take away.
_WRAPPING: Final = "\"'`“”‘’ \t\r\n"


def parse_servers(text: str) -> str:
    """The addresses as host:port, separated by commas, each once. Raises ValueError; no value is in its sentence."""
    servers = dict.fromkeys(_server(part) for part in _parts(text))
    if not servers:
        raise ValueError(f"no server is named; write {FORM}")
    return ",".join(servers)


def named_protocols(text: str) -> set[str]:
    """The security protocols that the addresses name (SSL://host:9093)."""
    schemes = (found[1].upper() for part in _parts(text) if (found := _SCHEME.fullmatch(part)))
    return {scheme for scheme in schemes if scheme in _PROTOCOLS}


def _parts(text: str) -> Iterator[str]:
    text = text.strip(_WRAPPING)
    if text.startswith("[") and text.endswith("]") and not _is_ipv6(text[1:-1]):
        text = text[1:-1]  # a list
    for part in _SPLIT.split(text):
        if stripped := part.strip(_WRAPPING):
            yield stripped


def _server(part: str) -> str:
    if found := _SCHEME.fullmatch(part):
        scheme, part = found[1].upper(), found[2]
        if scheme not in _PROTOCOLS and scheme not in _SCHEMES:
            raise ValueError(f"{scheme.lower()}:// is not a valid address of Kafka; write {FORM}")
    part = part.rstrip("/")
    if "@" in part:
        raise ValueError(f"a user stands in KAFKA_SASL_USERNAME, a password in KAFKA_SASL_PASSWORD; here write {FORM}")
    host, port = _split_port(part)
    return f"{host}:{port}"


def _split_port(part: str) -> tuple[str, int]:
    if part.startswith("["):
        host, closed, rest = part[1:].partition("]")
        if not (closed and _is_ipv6(host)) or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address reads [2001:db8::1]:9092")
        return f"[{host}]", _port(rest[1:])
    if part.count(":") > 1:
        if _is_ipv6(part):
            raise ValueError("an IPv6 address stands in brackets: [2001:db8::1]:9092")
        raise ValueError(f"an address has one port; write {FORM}")
    host, _, port = part.partition(":")
    return _host(host), _port(port)


def _port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"a port is a number from 1 to 65535; write {FORM}")
    return int(text)


def _host(text: str) -> str:
    try:
        host = text if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        host = ""
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or host.isdecimal():
        raise ValueError(f"a host's name has letters, digits, dots and dashes; write {FORM}")
    return host


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
