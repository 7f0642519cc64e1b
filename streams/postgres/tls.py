"""TLS for the driver: words for what it can do itself, a context of ours for what it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from streams.environment.database_url import Address
from streams.errors import SettingsError

#: The words that name a file.
_FILES: Final = ("sslrootcert", "sslcrl", "sslcert", "sslkey")
_SYSTEM: Final = "system"
#: The values of sslmode with which the driver goes on where a server has no TLS; it takes prefer where nothing is said.
_WITHOUT: Final = ("disable", "allow", "prefer")
#: The protocol's question whether a server speaks TLS (SSLRequest), and the answer of one that does not.
_ASK: Final = struct.pack("!ii", 8, 80877103)
_NO: Final = b"N"
#: Seconds that each host may take to answer it.
_ASK_SECONDS: Final = 5.0


def driver_words(address: Address) -> str:
    """Return the part of the address' query that the driver understands itself."""
    words = dict(address.driver)
    if own_context(address) is None:
        if address.sslmode is not None:
            words["sslmode"] = address.sslmode
        if address.sslrootcert is not None:
            words["sslrootcert"] = address.sslrootcert
    return urlencode(words)


def own_context(address: Address) -> ssl.SSLContext | None:
    """Return a TLS context for what the driver has no words for; None where its own will do.

    ``channel_binding=require`` asks for a proof that nobody stands between us and the server. The driver has no channel
    binding: the server's certificate, checked in full, proves the same.
    """
    proven = address.channel_binding == "require" or address.sslrootcert == _SYSTEM
    if not proven and address.sslmode != "no-verify":
        return None
    if proven:
        context = ssl.create_default_context(cafile=None if address.sslrootcert == _SYSTEM else address.sslrootcert)
    else:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "sslcert" in address.driver:
        _load_own(context, address)
    return context


def demands_tls(address: Address) -> bool:
    """Return True where a server without TLS must not be used."""
    mode = address.sslmode or os.environ.get("PGSSLMODE") or "prefer"
    return own_context(address) is not None or mode not in _WITHOUT


async def offers_no_tls(address: Address) -> bool:
    """Return True where all hosts answer that they do not speak TLS: then trying again cannot help.

    The driver says nothing of it but a sentence, so they are asked.
    """
    if not address.hosts or any(host.startswith(("/", "@")) for host, _ in address.hosts):
        return False
    answers = await asyncio.gather(*(_answer(host, port) for host, port in address.hosts))
    return all(answer == _NO for answer in answers)


async def _answer(host: str, port: int) -> bytes:
    """Return a host's answer to the question; nothing where it does not answer."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ASK_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_ASK)
                return await reader.read(1)
            finally:
                writer.close()
    return b""


def _load_own(context: ssl.SSLContext, address: Address) -> None:
    words = address.driver
    # Without a password OpenSSL would ask the terminal for one.
    context.load_cert_chain(words["sslcert"], words.get("sslkey"), lambda: words.get("sslpassword", ""))


def check_files(address: Address) -> None:
    """Check that every file that the address names can be read and is what it should be. Raises SettingsError."""
    named = {**address.driver, "sslrootcert": address.sslrootcert or _SYSTEM}
    for word in _FILES:
        path = named.get(word)
        if path is None or path == _SYSTEM:
            continue
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a path"
            raise SettingsError(f"DATABASE_URL: {word} names {path}, which cannot be read ({reason}).") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for word in ("sslrootcert", "sslcrl"):
        path = named.get(word)
        if path is not None and path != _SYSTEM:
            try:
                context.load_verify_locations(cafile=path)
            except ssl.SSLError:
                raise SettingsError(
                    f"DATABASE_URL: {word} names {path}, which holds no certificate in PEM form."
                ) from None
    if "sslcert" in named:
        try:
            _load_own(context, address)
        except ssl.SSLError:
            raise SettingsError(
                "DATABASE_URL: sslcert and sslkey do not fit together, are not in PEM form, or sslpassword is wrong."
            ) from None
