"""A stop signal never kills and is no traceback: at any call of an ingest's start, and while the interpreter ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.patience import PATIENCE

PROGRAM = """
import asyncio, os, signal
from streams.runtime.signals import on_stop_signals

async def main():
    asked = asyncio.Event()
    on_stop_signals(asked.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await asked.wait()

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), write=os.write):
        kill(pid, 15)
        write(1, b"still here")

asyncio.run(main())
os.kill(os.getpid(), signal.SIGTERM)
last = Last()
last.itself = last  # so that it goes with its module, after the interpreter gave up its signal handlers
"""

START = """
import asyncio, os, signal, socket, sys
from streams.ingestion.process import run_ingest
from streams.sources.firehose.plan import Request
from streams.ingestion.session import Options
from streams.settings import load_settings

async def ingest(settings, call):
    left = None

    def count(frame, event, argument):
        nonlocal left
        if event == "return" and frame.f_code.co_name == "on_stop_signals":
            left = call
        elif event == "call" and left is not None:
            left -= 1
            if left == 0:
                sys.setprofile(None)
                os.kill(os.getpid(), signal.SIGTERM)

    sys.setprofile(count)
    return await run_ingest(settings, Options(Request(-1, False, None, 0), False, False))

with socket.create_server(("127.0.0.1", 0)) as silent:  # a broker that takes connections and never answers
    os.environ["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:%d" % silent.getsockname()[1]
    settings = load_settings()
    for call in range(1, 1000, 7):  # it waits for the broker after some 1,170
        assert asyncio.run(ingest(settings, call)) == 0, call
"""


def test_a_stop_signal_at_any_call_of_an_ingests_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_stop_signal_at_the_very_end_does_not_kill() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (0, "still here"), done.stderr
