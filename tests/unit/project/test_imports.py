"""What a command imports: it decides how long a command takes to start, and tests start hundreds of them.

By the names of the modules, never by time. The lists have modules that take long to import. If a command comes to need
one of them, NEEDED says so.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from streams.commands import COMMANDS

#: Only what serves the live page needs them.
WEB = frozenset({"aiohttp.web", "jinja2", "prometheus_client", "streams.ui.web.server"})
FAUST = frozenset({"faust", "mode", "aiohttp"})
#: The way of an event: relay, decoder, rows.
WAY = frozenset({"websockets", "libipld", "cbor2", "streams.postgres.batch", "streams.sink_postgres"})
SERVERS = frozenset({"aiokafka", "asyncpg"})
#: Log lines, settings, tables on a terminal.
OUTPUT = frozenset({"structlog", "rich"})
SETTINGS = frozenset({"pydantic"})

#: The commands of ours that need some of it: the rebuild cuts slices as the worker does, the others ask or decode.
NEEDED = {
    "rebuild": FAUST | WAY,
    "dead-letters": WAY,
    "doctor": WAY,
}


def imported(module: str, *arguments: str) -> frozenset[str]:
    """The names of all modules after the command has printed its help or its list."""
    call = (
        f"import runpy, sys; sys.argv = [{module!r}, *{arguments!r}]\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('\\nmodules:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return frozenset(done.stdout.rpartition("modules:")[2].split())


def faust(*arguments: str) -> frozenset[str]:
    """What ``faust -A streams.agents`` imports."""
    return imported("streams.commands.faust_command", "-A", "streams.agents", *arguments)


@pytest.mark.parametrize("name", [str(command.name) for command in COMMANDS])
def test_a_command_imports_neither_faust_nor_the_web_port_nor_what_workers_run(name: str) -> None:
    assert not faust(name, "--help") & ((WEB | FAUST | WAY) - NEEDED.get(name, frozenset()))


def test_the_completion_needs_nothing_but_click() -> None:
    """Shells ask for it whenever they start."""
    assert not faust("completion", "bash") & (WEB | FAUST | WAY | SERVERS | OUTPUT | SETTINGS)


@pytest.mark.parametrize("arguments", [["--help"], ["agents"], ["tables"]], ids=" ".join)
def test_fausts_own_commands_import_nothing_that_a_worker_runs(arguments: list[str]) -> None:
    modules = faust(*arguments)
    assert "streams.agents" in modules
    assert not modules & (WEB | WAY | OUTPUT | {"asyncpg", "streams.worker.running"})
    assert not {name for name in modules if name.startswith("streams.commands.")} - {"streams.commands.faust_command"}
