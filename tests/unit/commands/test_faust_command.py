"""The command ``faust``: our own commands run without Faust, and say the same as through it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from faust.cli.base import cli

from streams import agents
from streams.commands import COMMANDS
from streams.commands.faust_command import our_arguments, our_group

APP = ["-A", "streams.agents"]


@pytest.mark.parametrize("name", [str(command.name) for command in COMMANDS])
def test_a_command_of_ours_is_taken_with_what_follows_it(name: str) -> None:
    assert our_arguments([*APP, name, "--help", "-A", "x"]) == [name, "--help", "-A", "x"]


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["status"], APP, [*APP, "worker"], [*APP, "--help"], [*APP, "statu"], ["--quiet", *APP, "status"],
        ["-A", "other.agents", "status"], ["--app", "streams.agents", "status"], [*APP, "--json", "status"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_everything_else_is_for_faust_to_read(arguments: list[str]) -> None:
    assert our_arguments(arguments) is None


@pytest.mark.parametrize(
    "arguments", [["status", "--wrong"], ["pause", "--help"], ["gaps"], ["gaps", "lisst"], ["completion", "csh"]]
)
def test_both_ways_say_the_same(arguments: list[str]) -> None:
    assert agents.app is not None, "which makes our commands known to Faust"
    ours, through_faust = (CliRunner().invoke(group, arguments, prog_name="faust") for group in (our_group(), cli))
    assert (ours.exit_code, ours.output) == (through_faust.exit_code, through_faust.output)
    assert ours.output
