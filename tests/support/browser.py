"""A real Chromium for the tests of the page: headless, with an empty profile, and with nobody to talk to."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from tests.support.patience import PATIENCE_MS

#: What it may be called; the first that is there is taken. `make debian` installs the first of them.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium() -> str | None:
    """Where the browser is, if there is one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@asynccontextmanager
async def opened() -> AsyncIterator[Browser]:
    """A browser. The test is skipped where there is none."""
    path = chromium()
    if path is None:
        pytest.skip("there is no Chromium here: `make debian` installs one where it can")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        try:
            yield browser
        finally:
            await browser.close()


class Watched:
    """A page, and what it said and asked for behind our back."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._on_request)
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)


@asynccontextmanager
async def page(browser: Browser, **context: Any) -> AsyncIterator[Watched]:
    """A page in a context of its own."""
    made = await browser.new_context(**context)
    made.set_default_timeout(PATIENCE_MS)
    try:
        yield Watched(await made.new_page())
    finally:
        await made.close()
