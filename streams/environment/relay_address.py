"""RELAY_URL as people write it, made into the address of a relay's subscribeRepos endpoint. Pure.

A sentence about an address never holds the address itself: there may be a password in it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

ENDPOINT: Final = "/xrpc/com.atproto.sync.subscribeRepos"

#: Schemes that mean a websocket, and what they become. An address that is copied from a browser has the others.
_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_FORM: Final = "a relay's address is wss://HOST or wss://HOST:PORT, and a path"
#: Quotes and brackets that come along where an address is copied.
_WRAPPING: Final = "\"'`<>\u2018\u2019\u201c\u201d"
#: A scheme whose colon or slashes are missing: without a hint it would be taken for a host.
_BROKEN_SCHEME: Final = re.compile(r"(wss?|https?)(:/?|//?)(?!/)", re.IGNORECASE)
_HOST: Final = re.compile(r"[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)*\.?")
#: What stands in no address: it was pasted with it, or is several addresses.
_FOREIGN: Final = re.compile(r"[\s\x00-\x1f\x7f,;|\\<>\"{}^`]")


def relay_address(text: str) -> str:
    """Return the address of the endpoint that ``text`` means.

    Understood: spaces and quotes around it, any case of the scheme, https:// and http:// for wss:// and ws://, no
    scheme, a missing path, a slash at the end, a cursor (which is dropped). Raises ValueError with what is wrong and
    the right form, without the address.
    """
    text = text.strip().strip(_WRAPPING).strip()
    if not text:
        raise ValueError(f"it is empty: {_FORM}")
    if _FOREIGN.search(text):
        raise ValueError(f"there is a space or another character that no address has in it: {_FORM} (one relay only)")
    scheme, rest = _scheme(text)
    found = re.match(r"([^/?#]*)([^?#]*)(?:\?([^#]*))?", rest)
    assert found is not None  # it matches anything
    authority, path, query = found.groups(default="")
    if "@" in rest[len(authority) :]:
        raise ValueError("there is an @ behind the host: in a password write / as %2F, ? as %3F, # as %23 and @ as %40")
    _check_authority(authority)
    return with_query(f"{scheme}://{authority}{_path(path)}", without_cursor(query))


def _scheme(text: str) -> tuple[str, str]:
    """Return the scheme, as ws or wss, and the rest of the address."""
    scheme, mark, rest = text.partition("://")
    if mark and not re.search(r"[/?#@]", scheme):
        if scheme.lower() not in _SCHEMES:
            raise ValueError("a relay's address begins with wss:// or ws://")
        return _SCHEMES[scheme.lower()], rest
    if _BROKEN_SCHEME.match(text):
        raise ValueError(f"its beginning is not complete: {_FORM}")
    rest = text.removeprefix("//")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if not (":" in host or "." in host or host.lower() == "localhost"):
        raise ValueError(f"it names no host: {_FORM}")
    name = re.sub(r":\d*$", "", host)
    # Nobody certifies the name of a neighbour: such a relay speaks no TLS.
    return ("ws" if is_loopback(name.strip("[]")) or not re.search(r"[.:]", name) else "wss"), rest


def _check_authority(authority: str) -> None:
    """Raise ValueError where login, host and port cannot be read."""
    login, at, place = authority.rpartition("@")
    user, colon, _ = login.partition(":")
    if at and not (user and colon):
        raise ValueError("in front of an @ stand a user and a password: wss://USER:PASSWORD@HOST")
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(:.*)?", place)
    if found is None or (place.count(":") > 1 and not place.startswith("[")):
        raise ValueError(f"{_FORM}; an IPv6 address stands in brackets: ws://[::1]:PORT")
    host, port = found[1], found[2]
    if not _is_host(host):
        raise ValueError(f"its host is not a valid host name: {_FORM}")
    if port is not None and not (re.fullmatch(r":[0-9]{1,5}", port) and 0 < int(port[1:]) < 65536):
        raise ValueError(f"its port is not a number from 1 to 65535: {_FORM}")


def _is_host(host: str) -> bool:
    """Return True if it is a name or an address (IPv6 in its brackets)."""
    try:
        if host.startswith("["):
            return bool(ipaddress.IPv6Address(host[1:-1]))
        return _HOST.fullmatch(host) is not None and len(host.encode("idna")) <= 253
    except ValueError:  # UnicodeError is one
        return False


def _path(path: str) -> str:
    """Return the path, completed where only its beginning is there."""
    path = "/" + re.sub("/+", "/", path.strip("/"))
    return ENDPOINT if path in {"/", "/xrpc"} else path


def without_cursor(query: str) -> str:
    """Return a query without its cursor: the ingest sets that itself."""
    return "&".join(pair for pair in query.split("&") if pair and pair.partition("=")[0].lower() != "cursor")


def with_query(address: str, query: str) -> str:
    """Return an address with a query, or as it is where that is empty."""
    return f"{address}?{query}" if query else address


def is_loopback(host: str) -> bool:
    """Return True if the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
