"""``faust -A streams.agents doctor``: looks at all that a deployment needs, and says how to mend it."""

from __future__ import annotations

import json
import sys

import click
import msgspec
from rich.text import Text

from streams.commands.runner import run_command
from streams.settings import Settings
from streams.status.doctor import Finding, check_up, exit_code
from streams.text import printable
from streams.ui.terminal.status_page import console_for

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

_EPILOG = """\b
Examples:
  faust -A streams.agents doctor
  RELAY_URL=wss://relay.example faust -A streams.agents doctor
  faust -A streams.agents doctor --json | jq 'select(.state == "fail")'

Exit code: 0, or that of the first thing that failed: 2 settings, 3 Kafka, 4 Postgres, 5 relay, 6 topic or schema."""


@click.command("doctor", epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, and nothing else.")
def command(*, as_json: bool) -> None:
    """Look at this machine, Kafka, Postgres and the relay; say what is wrong and how to mend it.

    It changes nothing, works when half of it is broken, and takes at most about 20 seconds.
    """

    async def main(settings: Settings) -> int:
        findings = await check_up(settings)
        if as_json:
            for finding in findings:
                click.echo(json.dumps(msgspec.to_builtins(finding)))
        else:
            _print(findings)
        return exit_code(findings)

    run_command(main)


def _print(findings: list[Finding]) -> None:
    console = console_for(sys.stdout.isatty())
    for finding in findings:
        line = Text(f"{finding.state:<5}", style=_STYLES[finding.state])
        line.append(f"{finding.what}: {printable(finding.text, 400)}", style="")
        if finding.mend:
            line.append(f"\n     → {printable(finding.mend, 400)}", style="")
        console.print(line, soft_wrap=True)
