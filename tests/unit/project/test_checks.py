"""``make test`` includes ``make check``: the commands are read from the Makefile, so that both stay the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


def check_commands() -> list[str]:
    makefile = (PROJECT / "Makefile").read_text()
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    return re.findall(r"\t@\$\(BIN\)/(.*)", recipe.group(1))


def test_the_checks_are_the_four_that_are_promised() -> None:
    assert [command.split()[0] for command in check_commands()] == ["ruff", "ruff", "mypy", "lint-imports"]


@pytest.mark.parametrize("command", check_commands())
def test_check(command: str) -> None:
    program, *arguments = command.split()
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
