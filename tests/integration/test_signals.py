"""A stop signal never kills, not even while the interpreter ends."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, os, signal
from streams.ops.signals import on_stop_signals

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


def test_a_stop_signal_at_the_very_end_does_not_kill() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "still here"), done.stderr
