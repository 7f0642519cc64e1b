"""Manners: help with examples everywhere, versions, and a completion that completes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from faust.cli.base import cli

from streams import __version__
from streams.agents import app
from streams.commands import COMMANDS, LazyCommand
from tests.acceptance.commands import FAUST, finish
from tests.support.patience import PATIENCE

MODULES = ("streams.ingest", "streams.local run", "streams.local", "streams.simulator")
#: The old name of a command, and the new one.
RENAMED = {"streams.run": "streams.local run", "streams.local.relay": "streams.simulator"}


def commands(given: list[click.Command], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands of ours, those of groups among them."""
    found: list[tuple[str, ...]] = []
    for command in given:
        words = (*before, command.name or "")
        found.append(words)
        if isinstance(command, click.Group):
            found.extend(commands(list(command.commands.values()), words))
    return found


OURS = commands([command.real for command in COMMANDS])


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_help_says_what_it_does_and_how_it_is_called(words: tuple[str, ...]) -> None:
    """By click itself, in this process: a process for each would take a minute."""
    assert app is not None
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
        command = command.real if isinstance(command, LazyCommand) else command
    assert command.help
    epilog = command.epilog or ""
    assert "xample" in epilog, "no example"
    examples = [line for line in epilog.splitlines() if "faust -A streams.agents" in line]
    assert any(f"faust -A streams.agents {' '.join(words)}" in line for line in examples), examples


def test_each_stands_for_the_command_of_its_name() -> None:
    assert [command.name for command in COMMANDS] == [command.real.name for command in COMMANDS]
    for width in (20, 40, 60, 200):
        assert [c.get_short_help_str(width) for c in COMMANDS] == [c.real.get_short_help_str(width) for c in COMMANDS]
    assert all(cli.commands[str(command.name)] is command for command in COMMANDS), "not Faust's of the same name"


def test_they_stand_also_where_fausts_are_imported_later() -> None:
    call = (
        "import streams.agents, faust.cli.faust; from faust.cli.base import cli; "
        "from streams.commands import COMMANDS; "
        "print([c.name for c in COMMANDS if cli.commands[c.name] is not c])"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_imports_none_of_them() -> None:
    """What it never uses would take a sixth of its start, and memory."""
    call = "import sys, streams.agents; print(*(name for name in sys.modules if name.startswith('streams.commands.')))"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


@pytest.mark.parametrize("module", MODULES)
async def test_the_modules_say_their_version_and_have_examples(module: str, tmp_path: Path) -> None:
    version, helped = await asyncio.gather(
        finish([sys.executable, "-m", *module.split(), "--version"], {}, tmp_path),
        finish([sys.executable, "-m", *module.split(), "--help"], {}, tmp_path),
    )
    assert (version.code, helped.code) == (0, 0), version.errors
    assert __version__ in version.output
    assert "examples:" in helped.output


@pytest.mark.parametrize("old", RENAMED)
async def test_old_names_work_and_say_the_new_one(old: str, tmp_path: Path) -> None:
    done = await finish([sys.executable, "-m", old, "--version"], {}, tmp_path)
    assert (done.code, done.output.strip()) == (0, __version__), done.errors
    assert f"python -m {old} is now python -m {RENAMED[old]}:" in done.errors


def complete(folder: Path, *lines: str) -> list[list[str]]:
    """What bash offers for the last word of each line, as its own machinery calls the script."""
    script = (
        'set -eu; source <("$FAUST" -A streams.agents completion bash); complete -p faust >/dev/null; '
        'for line in "$@"; do read -ra words <<< "$line"; '
        'COMP_WORDS=("$FAUST" "${words[@]}"); COMP_CWORD=${#words[@]}; COMPREPLY=(); _faust_completion "$FAUST"; '
        'printf "%s\\n" "${COMPREPLY[*]}"; done'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *lines], env={**os.environ, "FAUST": FAUST[0]}, cwd=folder,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    app = "-A streams.agents"
    command, word, options, argument = complete(
        tmp_path, f"{app} sta", f"{app} dead-letters pu", f"{app} status --", f"{app} completion z"
    )
    assert command == ["status"]
    assert word == ["purge"]
    assert {"--json", "--watch", "--check"} <= set(options)
    assert argument == ["zsh"]
