"""On a terminal: progress at the bottom that no log line tears; elsewhere: JSON, line by line."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.acceptance.commands import FAUST, INGEST, WORKER, finish, free_port
from tests.acceptance.deployment import Deployment
from tests.support.patience import PATIENCE

#: What a line of ours looks like on the console: time, level, event.
CONSOLE_LINE = re.compile(r"^\d\d:\d\d:\d\d \[\w+ *\] ")
SLOW = {"BACKFILL_BATCH_SIZE": "200", "BACKFILL_BATCH_DELAY_MS": "300", "BACKFILL_USE_IDLE": "false"}


class Terminal:
    """A command on a pseudo-terminal of 250 columns; ``text`` is all that it wrote."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(
            arguments, env={**os.environ, **environment, "TERM": "xterm-256color", "COLUMNS": "250", "LINES": "40"},
            cwd=folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    async def until(self, pattern: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, f"no {pattern!r} in\n{self.text[-3000:]}"
            self._read()
            await asyncio.sleep(0.05)

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self._read()
            await asyncio.sleep(0.05)
        self._read()
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 65536):
                self.text += data.decode(errors="replace")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO):  # nothing more now; nobody writes any more
                raise


def lines(text: str) -> list[str]:
    """What stood in whole lines: of a line that was drawn over, what came last; without colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", lambda m: "\r" if m.group().endswith("K") else "", text)
    return [line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n")]


async def reached(deployment: Deployment) -> int:
    """The seq that the ingest reports."""
    state = f"SELECT (state ->> 'seq')::bigint FROM {deployment.schema}.processes WHERE kind = 'ingest'"
    return int(await deployment.look.fetchval(state))


async def test_progress_of_both_on_a_terminal(settings_environment: dict[str, str], tmp_path: Path) -> None:
    async with Deployment.opened(settings_environment, tmp_path) as deployment:
        relay, _ = await deployment.generated(8000, "--then-live", "50")
        environment = {**deployment.environment, **SLOW}
        worker = Terminal(WORKER, {**environment, "WORKER_WEB_PORT": str(free_port())}, tmp_path)
        ingest = Terminal([*INGEST, "--days", "-1", "--follow"], {**environment, "RELAY_URL": relay.url}, tmp_path)
        try:
            await worker.until(r"worker  [\d,]+ to go  [\d,.]+ evt/s  [1-9][\d,]* processed  \d+/1024 MB  paced: ")
            await worker.until(r"\[BACKFILL\] Memory: \d+MB / 1024MB limit")
            await ingest.until(r"ingest.*%.*evt/s +seq \d+")
            done = await finish([*FAUST, "pause", "--ingest"], environment, tmp_path)
            assert done.code == 0, done.errors
            await worker.until("is paused by")
            await ingest.until("is paused by")
            await worker.until("  paused: ")
            before = None
            for _ in deployment.patiently("the relay, with 50 events a second, is not read"):
                if (now := await reached(deployment)) == before:
                    break
                before = now
                await asyncio.sleep(2.5)  # an ingest that reads writes a watermark a second
            assert await worker.stop() == 0
            assert await ingest.stop() == 0
            for terminal in (worker, ingest):
                # Each of our lines begins where a line begins, and the bar never stands in one.
                ours = [line for line in lines(terminal.text) if "BACKFILL" in line or "is paused by" in line]
                assert ours
                assert all(CONSOLE_LINE.match(line) for line in ours), ours
                assert not [line for line in ours if "to go" in line or "evt/s  seq" in line]
                assert terminal.text.count("\x1b[?25l") == terminal.text.count("\x1b[?25h"), "the cursor is back"
        finally:
            worker.close()
            ingest.close()


async def test_every_line_is_json_where_there_is_no_terminal(
    settings_environment: dict[str, str], tmp_path: Path
) -> None:
    """Faust's own lines too; its banner is on standard output."""
    process = subprocess.Popen(  # noqa: ASYNC220
        [*WORKER, "-l", "info"], cwd=tmp_path,
        env={**os.environ, **settings_environment, "WORKER_WEB_PORT": str(free_port())},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(tmp_path / "errors").open("wb"),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while "Ready" not in (tmp_path / "errors").read_text():
            assert time.monotonic() < deadline, (tmp_path / "errors").read_text()
            await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 12) == 0
    finally:
        process.kill()
    said = [json.loads(line) for line in (tmp_path / "errors").read_text().splitlines()]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in said)
    assert any("Ready" in line["event"] for line in said)
    assert any(line["event"].startswith("[BACKFILL] Pace: ") for line in said)
