"""Options of commands that delete: a variable that was empty, and a number that is none, delete nothing."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from streams.commands import dead_letters, prune


@pytest.mark.parametrize("command", [dead_letters.purge, dead_letters.replay])
@pytest.mark.parametrize("reason", ["", "  "])
def test_an_empty_reason_is_not_every_reason(command: click.Command, reason: str) -> None:
    done = CliRunner().invoke(command, ["--reason", reason])
    assert (done.exit_code, "empty" in done.output) == (2, True)


@pytest.mark.parametrize("days", ["nan", "inf", "1e9", "-1", "many"])
@pytest.mark.parametrize("what", ["tombstones", "dead-letters", "gaps"])
def test_days_that_are_none(what: str, days: str) -> None:
    done = CliRunner().invoke(prune.command, [f"--{what}-older-than", days])
    assert (done.exit_code, "Invalid value" in done.output) == (2, True), done.output
