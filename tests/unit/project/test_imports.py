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

#: What some of our commands need of it: the rebuild cuts slices as the worker does, the others ask a relay or decode.
NEEDED = {"rebuild": FAUST | WAY, "dead-letters": WAY, "doctor": WAY}


def after(code: str) -> frozenset[str]:
    """The names of all modules after this code has run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('\\nmodules:', *sys.modules)"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return frozenset(done.stdout.rpartition("modules:")[2].split())


def imported(module: str, *arguments: str) -> frozenset[str]:
    """What ``python -m`` imports of this module until it has printed its help or a list."""
    return after(
        f"import runpy; sys.argv = [{module!r}, *{arguments!r}]\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code"
    )


def faust(*arguments: str) -> frozenset[str]:
    """What ``faust -A streams.agents`` imports."""
    return imported("streams.commands.faust_command", "-A", "streams.agents", *arguments)


@pytest.mark.parametrize("needed", [None, *NEEDED])
def test_our_commands_import_neither_faust_nor_the_web_port_nor_what_workers_run(needed: str | None) -> None:
    """Those that need none of it together, for a process each would take long; the others one by one."""
    names = [needed] if needed else [command.name for command in COMMANDS if command.name not in NEEDED]
    modules = after(f"from streams.commands import COMMANDS\nfor c in COMMANDS: c.name in {names!r} and c.real")
    assert "streams.commands.runner" in modules
    assert sorted(modules & ((WEB | FAUST | WAY) - NEEDED.get(needed or "", frozenset()))) == []


def test_a_command_runs_without_faust() -> None:
    assert sorted(faust("gaps", "list", "--help") & (WEB | FAUST | WAY | {"streams.agents"})) == []


def test_the_completion_needs_nothing_but_click() -> None:
    """Shells ask for it whenever they start."""
    assert sorted(faust("completion", "bash") & (WEB | FAUST | WAY | SERVERS | OUTPUT | SETTINGS)) == []


@pytest.mark.parametrize("arguments", [["--help"], ["agents"], ["tables"]], ids=" ".join)
def test_fausts_own_commands_import_nothing_that_a_worker_runs(arguments: list[str]) -> None:
    modules = faust(*arguments)
    assert "streams.agents" in modules
    assert sorted(modules & (WEB | WAY | OUTPUT | {"asyncpg", "streams.worker.running"})) == []
    assert [name for name in modules if name.startswith("streams.commands.")] == []


def test_the_help_of_an_ingest_imports_nothing_that_an_ingest_runs() -> None:
    modules = imported("streams.ingest", "--help")
    assert sorted(modules & (WEB | FAUST | WAY | SERVERS | OUTPUT | {"psutil"})) == []


@pytest.mark.parametrize("command", ["up", "down", "status", "env"])
def test_the_embedded_stack_needs_nothing_that_speaks_to_it(command: str) -> None:
    modules = imported("streams.local", command, "--help")
    assert "streams.local.stack" in modules
    assert sorted(modules & (WEB | FAUST | WAY | SERVERS | OUTPUT | {"streams.local.run"})) == []


def test_the_development_relay_has_no_settings() -> None:
    assert sorted(imported("streams.simulator", "--help") & (WEB | FAUST | SERVERS | OUTPUT | SETTINGS)) == []
