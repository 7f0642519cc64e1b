"""What worker and ingest listen on: loopback only, nothing of the tables; what is listed, without any server."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.acceptance.commands import FAUST, finish, free_port
from tests.acceptance.deployment import Deployment
from tests.support.patience import PATIENCE


async def test_the_web_port_is_loopback_and_shows_no_tables(deployment: Deployment) -> None:
    relay, _ = await deployment.generated(1_000)
    port, ingest_port = free_port(), free_port()
    worker = deployment.worker(WORKER_WEB_PORT=str(port))
    ingest = deployment.ingest(relay.url, "--follow", INGEST_WEB_BIND="127.0.0.2", INGEST_WEB_PORT=str(ingest_port))
    await deployment.until_received(1_000)
    for process, *address in ((worker, "127.0.0.1", port), (ingest, "127.0.0.2", ingest_port)):
        connections = psutil.Process(process.pid).net_connections()
        assert [tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN] == [tuple(address)]
    for path in ("table/", "tables/", "table/progress/", "table/collections/0/", "router/", "graph/", "stats/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE)
        assert refused.value.code == 404
    await ingest.stop()
    await worker.stop()


async def test_a_worker_without_web_listens_to_nobody(deployment: Deployment) -> None:
    worker = deployment.worker("--without-web")
    for pause in deployment.patiently("the worker is there"):
        if await deployment.table("processes"):
            break
        await asyncio.sleep(pause)
    assert not [c for c in psutil.Process(worker.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    await worker.stop()


@pytest.mark.parametrize(("command", "names"), [("agents", ["sink_postgres"]), ("tables", ["progress", "collections"])])
async def test_listings_need_no_server(tmp_path: Path, command: str, names: list[str]) -> None:
    done = await finish([*FAUST, command], {"LOCAL_DIR": str(tmp_path / "nothing")}, tmp_path)
    assert done.code == 0, done.errors
    for name in names:
        assert name in done.output
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []
