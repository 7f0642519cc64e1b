"""``make run`` and ``make demo``: one command from a relay to rows, with a summary, and the same again."""

from __future__ import annotations

import asyncio
import re
import sys

from tests.acceptance.commands import Command, finish, free_port
from tests.acceptance.deployment import Deployment

RUN = [sys.executable, "-m", "streams.local", "run"]


def environment(deployment: Deployment, **settings: str) -> dict[str, str]:
    return {**deployment.environment, "WORKER_WEB_PORT": str(free_port()), **settings}


async def test_a_run_takes_everything_and_says_so(deployment: Deployment) -> None:
    relay, oracle = await deployment.generated(10_000)
    settings = environment(deployment, RELAY_URL=relay.url, BACKFILL_DAYS="-1")
    done = await finish(RUN, settings, deployment.folder, 120)
    assert done.code == 0, done.output + done.errors
    assert "Done: 10,000 events in " in done.output
    assert f"Watch it live: http://127.0.0.1:{settings['WORKER_WEB_PORT']}/" in done.output
    records = sum(map(len, oracle["records"].values()))
    assert f"rows          {records:,} records" in done.output
    assert "not covered   nothing that was asked for" in done.output
    assert re.search(r"psql .* -c \"SELECT ", done.output)
    await deployment.check(oracle, oracle["last_seq"] or 0)

    # Again: it resumes, there is nothing new, and it says what there is.
    done = await finish(RUN, settings, deployment.folder, 120)
    assert done.code == 0
    assert "mode: resume" in done.output
    assert "Done: 0 events" in done.output


async def test_a_run_that_is_stopped_saves_its_position(deployment: Deployment) -> None:
    relay, oracle = await deployment.generated(10_000, "--then-live", "300", "--live-events", "8000")
    # So slow that it is by far not done, however late we learn that it has begun.
    pace = {"BACKFILL_BATCH_SIZE": "100", "BACKFILL_BATCH_DELAY_MS": "200", "BACKFILL_USE_IDLE": "false"}
    run = Command(
        "run", RUN, environment(deployment, RELAY_URL=relay.url, BACKFILL_DAYS="-1", **pace), deployment.folder
    )
    deployment.commands.append(run)
    for pause in deployment.patiently("a cursor"):
        if await deployment.cursor() is not None:
            break
        await asyncio.sleep(pause)
    run.process.terminate()
    assert await run.ended() == 0, run.tail()
    assert "The position is saved" in run.output
    assert 0 < await deployment.received() < 10_000
    assert sum(map(len, oracle["records"].values())) > 0


async def test_a_run_whose_relay_is_away_says_so(deployment: Deployment) -> None:
    url = "ws://127.0.0.1:1/xrpc/com.atproto.sync.subscribeRepos"
    done = await finish(RUN, environment(deployment, RELAY_URL=url), deployment.folder, 120)
    assert done.code == 5
    assert "The relay 127.0.0.1:1 cannot be reached" in done.output
    assert "Traceback" not in done.output + done.errors


async def test_a_run_whose_relay_refuses_says_so(deployment: Deployment) -> None:
    """Whatever becomes of the worker, which is stopped while it starts: the relay is why it ends."""
    relay, _ = await deployment.generated(10, "--fault", "refuse:status=403,times=0")
    done = await finish(RUN, environment(deployment, RELAY_URL=relay.url), deployment.folder, 120)
    assert done.code == 5, done.output
    assert "refuses us: HTTP 403" in done.output


async def test_the_demo_is_exact_also_the_second_time(deployment: Deployment) -> None:
    settings = {
        name: value for name, value in environment(deployment).items() if not name.startswith(("SINK_", "KAFKA_T"))
    }
    for _ in range(2):
        done = await finish([*RUN, "--demo"], settings, deployment.folder, 300)
        assert done.code == 0, done.output + done.errors
        assert "Done: 100,000 events" in done.output
        assert re.search(r"Postgres holds exactly the [\d,]+ records", done.output)


async def test_a_backfill_that_is_off_does_nothing(deployment: Deployment) -> None:
    done = await finish(RUN, environment(deployment, BACKFILL_DAYS="0"), deployment.folder)
    assert done.code == 0
    assert "BACKFILL_DAYS=0" in done.output
