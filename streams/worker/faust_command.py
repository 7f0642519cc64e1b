"""The command ``faust`` as this project installs it: Faust's own, which reads nothing from the environment.

Faust takes options from FAUST_ and F_ names, and Django's settings, while it is imported, before any code of an app
runs: another service's FAUST_LOOP=uvloop would end every command with a traceback. What it is to know we hand it
(``agents.make_app``). On the command line all its options work.
"""

from __future__ import annotations

import os
import sys

from streams.environment.names import forget_fausts
from streams.runtime.logs import print_anywhere


def main() -> int:
    """Run Faust's command line; returns the exit code."""
    forget_fausts(os.environ)
    print_anywhere()  # its banner has letters that not every terminal has
    from faust.cli.faust import cli  # noqa: PLC0415 (not before)

    cli()
    return 0


if __name__ == "__main__":
    sys.exit(main())
