"""The completion: click's script for each shell, in which Faust is told the app."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from streams.commands.completion import command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_faust_with_our_app(shell: str) -> None:
    script = CliRunner().invoke(command, [shell], catch_exceptions=False).output
    asks = [line for line in script.splitlines() if f"_FAUST_COMPLETE={shell}_complete" in line]
    assert len(asks) == 1
    assert asks[0].count(" -A streams.agents 2>/dev/null)") == 1
    assert script.count("-A streams.agents") == 1
