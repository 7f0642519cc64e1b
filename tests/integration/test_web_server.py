"""The HTTP server at a real socket: what it refuses, what it bounds, and that nobody who looks disturbs the process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streams.errors import BrokerError, SettingsError
from streams.status.model import Status
from streams.ui.web import events
from streams.ui.web.port import TRIES, address, hold_port
from streams.ui.web.server import WebServer
from tests.acceptance.commands import free_port
from tests.support import web_samples as samples
from tests.support.patience import PATIENCE


class Known:
    """A deployment that is always the same, or cannot be read. Counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = self.opened = self.closed = 0
        self.fault: BaseException | None = None
        self.is_asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def gather(self) -> Status:
        self.asked += 1
        self.is_asked.set()
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault
        return samples.status()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Known]:
        self.opened += 1
        yield self
        self.closed += 1


class Served:
    def __init__(self, server: WebServer, known: Known, session: aiohttp.ClientSession) -> None:
        self.server, self.known, self.session = server, known, session
        self.database: BaseException | None = None

    async def get(self, path: str, **options: Any) -> tuple[int, str, dict[str, str]]:
        async with self.session.get(self.server.address + path, **options) as answer:
            return answer.status, await answer.text(), dict(answer.headers)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    known = Known()
    held = hold_port("127.0.0.1", free_port(), "WORKER_WEB_PORT")

    async def probe() -> None:
        if made.database is not None:
            raise made.database

    server = WebServer(held, samples.worker_figures, known.open, probe)
    async with aiohttp.ClientSession() as session:
        made = Served(server, known, session)
        await server.start()
        try:
            yield made
        finally:
            await server.close()
    assert known.opened == known.closed


async def test_what_it_serves(served: Served) -> None:
    kinds = {
        "/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml",
        "/status.json": "application/json", "/readyz": "application/json",
        "/metrics": "text/plain", "/healthz": "text/plain",
    }  # fmt: skip
    for path, kind in kinds.items():
        status, _, headers = await served.get(path)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, kind), path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] in ("no-store", "no-cache")
        assert headers["Server"] == "atproto-streams"
        assert not [name for name in headers if name.startswith("Access-Control")]
    for path in ("/table/", "/graph/", "/stats/", "/../streams/settings.py", "/page.html", "/nothing"):
        assert (await served.get(path))[0] == 404


async def test_it_is_read_only(served: Served) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        async with served.session.request(method, served.server.address + "/") as answer:
            assert answer.status == 405
            assert "nosniff" in answer.headers["X-Content-Type-Options"]
    async with served.session.head(served.server.address + "/") as answer:
        assert answer.status == 200


async def test_a_name_that_was_bent_to_this_machine_is_refused(served: Served) -> None:
    assert (await served.get("/", headers={"Host": "evil.example"}))[0] == 421
    assert (await served.get("/metrics", headers={"Host": "evil.example:6066"}))[0] == 421
    assert (await served.get("/healthz", headers={"Host": "localhost:1"}))[0] == 200


async def test_all_who_ask_at_once_are_one_question(served: Served) -> None:
    answers = await asyncio.gather(*(served.get("/status.json") for _ in range(20)))
    assert {status for status, _, _ in answers} == {200}
    assert served.known.asked == 1
    assert json.loads(answers[0][1])["lag"] == samples.status().lag


async def test_a_deployment_that_cannot_be_read_is_said_and_comes_back(served: Served) -> None:
    served.known.fault = BrokerError("Kafka at 127.0.0.1:9 does not answer.")
    status, page, _ = await served.get("/")
    assert status == 200
    assert "Kafka at 127.0.0.1:9 does not answer." in page
    assert (await served.get("/status.json"))[0] == 503
    assert "atproto_streams_deployment_up 0.0" in (await served.get("/metrics"))[1]
    served.known.fault = ValueError("a bug")
    await asyncio.sleep(1)
    status, page, _ = await served.get("/")
    assert (status, "a bug" in page) == (200, False)
    served.known.fault = None
    await asyncio.sleep(1)
    assert "Catching up: 1 h 44 min" in (await served.get("/"))[1]


async def test_a_deployment_that_hangs_keeps_no_scrape_waiting(served: Served) -> None:
    served.known.answers.clear()
    async with asyncio.timeout(PATIENCE):  # Prometheus gives up after 10 s; what is asked here never answers
        metrics, page, status = await asyncio.gather(*(served.get(path) for path in ("/metrics", "/", "/status.json")))
    assert (metrics[0], page[0], status[0]) == (200, 200, 503)
    assert "atproto_streams_deployment_up 0.0" in metrics[1]
    assert "atproto_streams_deployment_lag_messages" not in metrics[1]
    assert 'atproto_streams_worker_events_total{outcome="applied"}' in metrics[1]
    assert "has not answered for 3 s" in page[1]
    assert "has not answered" in json.loads(status[1])["error"]
    assert served.known.asked == 1
    served.known.answers.set()
    await asyncio.sleep(0)
    assert "atproto_streams_deployment_up 1.0" in (await served.get("/metrics"))[1]
    assert served.known.asked == 1, "what was asked first has answered"
    assert "has not answered" not in (await served.get("/"))[1]


async def test_it_closes_in_time_while_a_deployment_hangs(served: Served) -> None:
    served.known.answers.clear()
    asking = asyncio.create_task(served.get("/status.json"))
    await served.known.is_asked.wait()
    async with asyncio.timeout(PATIENCE):
        await served.server.close()
    await asyncio.gather(asking, return_exceptions=True)


async def test_ready_or_not_and_why(served: Served) -> None:
    assert (await served.get("/readyz"))[0] == 200
    served.database = OSError("no route to it")
    status, body, _ = await served.get("/readyz")
    assert status == 503
    [check] = [check for check in json.loads(body)["checks"] if not check["ok"]]
    assert check == {"name": "database", "ok": False, "why": "no route to it"}


async def test_a_view_a_second(served: Served) -> None:
    async with served.session.get(served.server.address + "/events") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        views = []
        async with asyncio.timeout(PATIENCE):
            while len(views) < 2:
                line = await answer.content.readline()
                if line.startswith(b"data: "):
                    views.append(json.loads(line[6:]))
    assert [view["headline"]["title"] for view in views] == ["catching up"] * 2


async def test_too_many_are_sent_away_and_whoever_leaves_makes_room(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_CLIENTS", 3)
    looking = [await served.session.get(served.server.address + "/events") for _ in range(3)]
    status, _, headers = await served.get("/events")
    assert (status, headers["Retry-After"]) == (503, "30")
    assert (await served.get("/"))[0] == 200
    looking[0].close()
    async with asyncio.timeout(PATIENCE):
        while (await one_more(served)) != 200:
            pass


async def one_more(served: Served) -> int:
    async with served.session.get(served.server.address + "/events") as answer:
        return answer.status


async def test_one_who_does_not_read_is_dropped_and_keeps_nobody_waiting(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SLOWEST", 0.3)
    monkeypatch.setattr(events, "EVERY", 0.01)
    host, port = served.server.address.removeprefix("http://").split(":")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect((host, int(port)))
    slow.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for clients in (1, 0):
        async with asyncio.timeout(PATIENCE):
            while served.server.clients != clients:
                assert (await served.get("/healthz"))[0] == 200
    slow.close()


async def test_rubbish_is_answered_and_ends_nothing(served: Served) -> None:
    host, port = served.server.address.removeprefix("http://").split(":")
    for rubbish in (
        b"\x16\x03\x01\x02\x00",
        b"GET /" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000,
        b"\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(rubbish)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            await reader.read(1000)
        writer.close()
    assert (await served.get("/healthz"))[0] == 200


async def test_it_closes_in_time_while_somebody_looks(served: Served) -> None:
    async with served.session.get(served.server.address + "/events") as answer:
        await answer.content.readline()
        async with asyncio.timeout(PATIENCE):
            await served.server.close()


def test_the_next_free_port_is_held_at_once() -> None:
    port = free_port()
    first, second = (hold_port("127.0.0.1", port, "WORKER_WEB_PORT") for _ in range(2))
    assert address(first) == f"http://127.0.0.1:{port}"
    assert second.getsockname()[1] > port
    for held in (first, second):
        held.close()


def test_an_address_that_is_not_ours_is_a_setting() -> None:
    with pytest.raises(SettingsError, match=r"The web port cannot be opened on 192\.0\.2\.1"):
        hold_port("192.0.2.1", free_port(), "WORKER_WEB_PORT")
    assert TRIES == 100


DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


async def test_the_image_asks_for_its_health_at_the_port_of_the_settings(served: Served) -> None:
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    command = [sys.executable, *json.loads(found[1])[1:]]
    for port, code in ((served.server.address.rpartition(":")[2], 0), (str(free_port()), 1)):
        asking = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "WORKER_WEB_PORT": port}, stderr=asyncio.subprocess.DEVNULL
        )
        assert await asking.wait() == code
