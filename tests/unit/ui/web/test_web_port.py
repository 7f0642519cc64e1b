"""What is said of a web port: an address that can be opened, and from where else."""

from __future__ import annotations

import contextlib
import socket

import pytest

from streams.ui.web.port import address, elsewhere, hold_port, is_loopback
from tests.acceptance.commands import free_port


@pytest.mark.parametrize(
    ("bind", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_the_address_that_is_said_can_be_opened(bind: str, shown: str) -> None:
    port = free_port()
    with contextlib.closing(hold_port(bind, port, "WORKER_WEB_PORT")) as held:
        assert address(held) == f"http://{shown}:{port}"
        socket.create_connection((shown.strip("[]"), port)).close()


@pytest.mark.parametrize("bind", ["0.0.0.0", "::"])
def test_a_port_on_all_addresses_says_from_where_else_it_is_reached(bind: str) -> None:
    port = free_port()
    with contextlib.closing(hold_port(bind, port, "WORKER_WEB_PORT")) as held:
        assert elsewhere(held, inside=False) == "and at every other address of this machine"
        said = elsewhere(held, inside=True)
        assert said == f"inside this container; outside of it, where its port {port} is published"
        assert not is_loopback(held)  # every name is answered to, as before


@pytest.mark.parametrize("inside", [False, True])
def test_a_port_on_one_address_is_nowhere_else(inside: bool) -> None:
    with contextlib.closing(hold_port("127.0.0.1", free_port(), "WORKER_WEB_PORT")) as held:
        assert elsewhere(held, inside=inside) is None
