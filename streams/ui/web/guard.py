"""The rules for every request and every answer, whatever is asked for."""

from __future__ import annotations

import ipaddress
import logging
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

log = logging.getLogger(__name__)

HEADERS: Final = {
    # Nothing but this page's own files; no inline script or style.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "atproto-streams",
}


def names_loopback(host: str | None) -> bool:
    """Return True if a Host header names this machine to itself. Another name that leads here is DNS rebinding."""
    try:
        name = urlsplit(f"//{host}").hostname if host else None
        return name == "localhost" or (name is not None and ipaddress.ip_address(name).is_loopback)
    except ValueError:
        return False


def guard(*, loopback: bool) -> Middleware:
    """Return the middleware: methods, Host, headers. An error is a line in the log and an answer, never more."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.method not in ("GET", "HEAD"):
                raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
            if loopback and not names_loopback(request.headers.get("Host")):
                raise web.HTTPMisdirectedRequest(text="This port answers to localhost and 127.0.0.1 only.\n")
            return await handler(request)
        except web.HTTPException:
            raise
        except ConnectionError:
            raise
        except Exception as error:
            log.warning("The web port could not answer %s: %r", request.path[:100], error, exc_info=error)
            raise web.HTTPInternalServerError(text="This could not be answered; the log says why.\n") from None

    return middleware


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Add our headers before an answer is sent."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
