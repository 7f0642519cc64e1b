"""The live page in a real browser, over a real deployment: it says what the database says, and all can read it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page
from prometheus_client.parser import text_string_to_metric_families

from streams.text import printable
from tests.acceptance.commands import Command, free_port
from tests.acceptance.deployment import Deployment
from tests.support import browser
from tests.support.patience import PATIENCE, PATIENCE_MS
from tests.support.web_samples import HOSTILE

EVENTS = 6_000
FIRST_SEQ = 5_000_000_001
#: Two connections look where the head is, the third reads, the fourth comes after a drop: see test_faults.
LIVE = ("--then-live", "500", "--live-events", "200")
DESKTOP = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 740}


@dataclass
class Site:
    """A deployment that is at rest, and where its pages are."""

    deployment: Deployment
    worker: str
    ingest: str
    commands: tuple[Command, ...]


async def test_the_page(deployment: Deployment) -> None:
    site = await at_rest(deployment)
    await bury_hostile_letters(site)
    await claim_odd_times(site)
    async with browser.opened() as chromium:
        await agrees_with_the_database(site, chromium)
        await is_updated_without_a_reload(site, chromium)
        for scheme in ("light", "dark"):
            await everybody_can_read_it(site, chromium, scheme)
        await fits_a_phone(site, chromium)
        await strangers_strings_are_text(site, chromium)
        await says_the_same_without_javascript(site, chromium)
        await the_ingest_has_it_too(site, chromium)
    for command in reversed(site.commands):
        await command.stop()


async def at_rest(deployment: Deployment) -> Site:
    """Traffic with bad frames and a gap through a relay, Kafka and Postgres, followed live, until nothing moves."""
    faults = ("garbage:scatter=5", f"drop:seq={FIRST_SEQ + 2_000}", "clamp:connection=4,count=600")
    relay, oracle = await deployment.generated(
        EVENTS, *LIVE, *(part for fault in faults for part in ("--fault", fault))
    )
    ports = free_port(), free_port()
    worker = deployment.worker(WORKER_WEB_PORT=str(ports[0]))
    ingest = deployment.ingest(relay.url, "--follow", INGEST_WEB_PORT=str(ports[1]))
    await deployment.until_cursor(oracle["last_seq"] or 0)
    await deployment.until_applied()
    return Site(deployment, *(f"http://127.0.0.1:{port}" for port in ports), commands=(worker, ingest))


async def bury_hostile_letters(site: Site) -> None:
    """Dead letters as the worst strangers would write them, where the page reads them."""
    deployment = site.deployment
    for number, text in enumerate(HOSTILE):
        stored = text.replace("\x00", "")
        await deployment.look.execute(
            f"INSERT INTO {deployment.schema}.dead_letters "
            '(topic, partition, "offset", reason, did, collection, payload) '
            "VALUES ($1, 0, $2, $3, $4, $5, '')",
            deployment.topic, 10_000_000 + number, stored, stored, stored,
        )  # fmt: skip


async def claim_odd_times(site: Site) -> None:
    """As if PDSes with wrong clocks had said something of accounts."""
    schema = site.deployment.schema
    await site.deployment.look.execute(
        f"UPDATE {schema}.sink_offsets SET odd_claims = odd_claims + 3 WHERE partition = 0"
    )


# -- what it says


async def fetched(url: str) -> str:
    def get() -> str:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


async def metrics(url: str) -> dict[str, float]:
    """Samples without labels by name, those of the worker's outcomes by name and outcome."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(await fetched(f"{url}/metrics")):
        for sample in family.samples:
            found["/".join((sample.name, *sample.labels.values()))] = sample.value
    return found


async def database_says(deployment: Deployment) -> dict[str, int]:
    """What Kafka and Postgres hold, asked for by the test itself."""
    ends, offsets = await deployment.ends(), await deployment.offsets()
    return {
        **await deployment.counts(),
        "lag": sum(ends.values()) - sum(offsets.values()),
        "dead_letters": len(await deployment.table("dead_letters")),
        "gaps": len(await deployment.table("gaps")),
        "odd_claims": await deployment.look.fetchval(
            f"SELECT sum(odd_claims)::int FROM {deployment.schema}.sink_offsets"
        ),
    }


async def agrees_with_the_database(site: Site, chromium: Browser) -> None:
    """Page, status and metrics say what Kafka and Postgres hold."""
    expected = await database_says(site.deployment)
    assert expected["applied"] > EVENTS * 7 // 10
    assert expected["dead_letters"] > len(HOSTILE)
    assert expected["gaps"] == 1
    status = json.loads(await fetched(f"{site.worker}/status.json"))
    assert {name: status[name] for name in expected} == expected
    assert {p["partition"]: p["next_offset"] for p in status["partitions"]} == await site.deployment.offsets()

    told = await metrics(site.worker)
    deployment = "atproto_streams_deployment_"
    for name in ("dead_letters", "gaps", "odd_claims"):
        assert told[deployment + name] == expected[name]
    assert told[deployment + "lag_messages"] == expected["lag"] == 0
    for outcome in ("applied", "skipped", "dead"):
        assert told[f"{deployment}events/{outcome}"] == expected[outcome]
        # One worker did it all.
        assert told[f"atproto_streams_worker_events_total/{outcome}"] == expected[outcome]
    offsets = await site.deployment.offsets()
    assert {
        int(name.rsplit("/", 1)[1]): value
        for name, value in told.items()
        if name.startswith("atproto_streams_worker_next")
    } == offsets

    async with browser.page(chromium, viewport=DESKTOP) as watched:
        await watched.page.goto(site.worker)
        await live(watched.page)
        assert await tile(watched.page, "Waiting in Kafka") == expected["lag"]
        assert await tile(watched.page, "Applied") == expected["applied"]
        assert await tile(watched.page, "Skipped") == expected["skipped"]
        assert await tile(watched.page, "Dead letters") == expected["dead_letters"]
        assert await tile(watched.page, "Gaps") == expected["gaps"]
        odd = f"; {expected['odd_claims']} events claim a time more than an hour off"
        assert odd in await watched.page.locator(".journey .station").last.inner_text()
        rows = await watched.page.locator("[aria-labelledby=h-partitions] tbody tr").all_inner_texts()
        assert {int(row.split()[0]): number(row.split()[-2]) for row in rows} == offsets
        assert watched.complaints == []
        hosts = {urlsplit(url).netloc for url in watched.requests}
        assert hosts == {urlsplit(site.worker).netloc}
        await photograph(watched.page, "desktop")


async def is_updated_without_a_reload(site: Site, chromium: Browser) -> None:
    async with browser.page(chromium, viewport=DESKTOP) as watched:
        await watched.page.goto(site.worker)
        before = await tile(watched.page, "Dead letters")
        await site.deployment.look.execute(
            f'DELETE FROM {site.deployment.schema}.dead_letters WHERE "offset" = 10000006'
        )
        await watched.page.wait_for_function(
            "n => [...document.querySelectorAll('.tile')].some(tile => tile.firstChild.textContent === 'Dead letters' "
            "&& Number(tile.querySelector('.value').textContent) === n)",
            arg=before - 1,
        )
        assert [url for url in watched.requests if url.rstrip("/") == site.worker] == [f"{site.worker}/"]
        assert watched.complaints == []


async def everybody_can_read_it(site: Site, chromium: Browser, scheme: Any) -> None:
    """Axe finds nothing serious; the heads are in order; the keyboard reaches everything, and shows where it is."""
    async with browser.page(chromium, viewport=DESKTOP, color_scheme=scheme, reduced_motion="reduce") as watched:
        # The page's policy lets nothing in, axe neither: it is put in beside it.
        await watched.page.goto(site.worker)
        await live(watched.page)
        found = await Axe().run(watched.page)
        bad = [v for v in found.response["violations"] if v["impact"] in ("serious", "critical")]
        assert not bad, json.dumps([(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in bad], indent=1)
        assert found.response["passes"]
        heads = await watched.page.locator("h1, h2").evaluate_all("all => all.map(h => h.tagName)")
        assert heads[0] == "H1"
        assert heads.count("H1") == 1
        await watched.page.keyboard.press("Tab")
        assert await watched.page.evaluate("document.activeElement.textContent") == "To the numbers"
        assert await watched.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        moving = "document.getAnimations().filter(a => a.playState === 'running').length"
        assert await watched.page.evaluate(moving) == 0
        await photograph(watched.page, scheme)


async def fits_a_phone(site: Site, chromium: Browser) -> None:
    async with browser.page(chromium, viewport=PHONE, has_touch=True, device_scale_factor=2) as watched:
        await watched.page.goto(site.worker)
        await live(watched.page)
        assert await watched.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        outside = "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
        assert await watched.page.locator("main *:not(.unseen):not(.stacked thead *)").evaluate_all(outside) == []
        assert watched.complaints == []
        await photograph(watched.page, "phone")


async def strangers_strings_are_text(site: Site, chromium: Browser) -> None:
    """Both ways: as the server writes them, and as the script updates them."""
    for javascript in (False, True):
        async with browser.page(chromium, java_script_enabled=javascript) as watched:
            await watched.page.goto(site.worker)
            if javascript:
                await live(watched.page)
            text = await watched.page.locator("[aria-labelledby=h-letters]").inner_text()
            for hostile in HOSTILE[:5]:
                assert printable(hostile, 60) in text
            assert await watched.page.locator("img, iframe, style, main script").count() == 0
            assert "pwned" not in await watched.page.title()
            assert watched.complaints == []


async def says_the_same_without_javascript(site: Site, chromium: Browser) -> None:
    expected = await database_says(site.deployment)
    async with browser.page(chromium, java_script_enabled=False) as watched:
        await watched.page.goto(site.worker)
        assert await tile(watched.page, "Applied") == expected["applied"]
        assert await tile(watched.page, "Dead letters") == expected["dead_letters"]
        assert "load the page again" in await watched.page.inner_text("header")


async def the_ingest_has_it_too(site: Site, chromium: Browser) -> None:
    async with browser.page(chromium) as watched:
        await watched.page.goto(site.ingest)
        await live(watched.page)
        assert "This ingest" in await watched.page.inner_text("main")
        rows = await watched.page.locator("[aria-labelledby=h-processes] tbody tr").all_inner_texts()
        assert sorted(row.split()[0] for row in rows) == ["ingest", "worker"]
        assert watched.complaints == []
    told = await metrics(site.ingest)
    assert told["atproto_streams_ingest_events_total"] > 0
    assert told["atproto_streams_ingest_received_bytes_total"] > told["atproto_streams_ingest_events_total"]
    assert json.loads(await fetched(f"{site.ingest}/readyz"))["ready"] is True
    assert json.loads(await fetched(f"{site.worker}/readyz"))["ready"] is True


# -- helpers


async def live(page: Page) -> None:
    """Until the first event has come."""
    await page.wait_for_selector("#live[data-live=yes]", timeout=PATIENCE_MS)


async def tile(page: Page, name: str) -> int:
    found = page.locator(".tile", has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator(".value")
    return number(await found.inner_text())


def number(text: str) -> int:
    return int(text.replace(",", ""))


async def photograph(page: Page, name: str) -> None:
    """A picture in the folder that PICTURES names, to look at."""
    folder = os.environ.get("PICTURES")
    if folder:
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
