"""``python -m streams.local``: the embedded Kafka and Postgres from the shell, and ``run``: all of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from streams import __version__
from streams.errors import StreamsError
from streams.local.postgres import program_folder
from streams.local.stack import PartStatus, Stack
from streams.settings import load_settings

#: ``status`` and ``env`` when the stack is not (wholly) up.
EXIT_DOWN: Final = 3

_EPILOG = """\
examples:
  python -m streams.local up            start Kafka and Postgres, or find them up; prints where they are
  python -m streams.local status        what is up, its ports, memory and disk; exit code 0 up, 3 down
  python -m streams.local env           the settings that point everything at them:
  export $(python -m streams.local env)   ... for this shell
  python -m streams.local psql          psql in the embedded database; -c 'SELECT ...' as usual
  python -m streams.local down          stop both; the data stays for the next start
  python -m streams.local run --demo    a relay's firehose into Postgres, here generated traffic: `make demo`

The first start downloads Apache Kafka (43 MB). Everything listens on 127.0.0.1 only.
To remove the data: stop both, and remove the folder.
exit codes: 0 done, 1 failed, 2 a setting or an argument, 3 down or Kafka failed, 4 Postgres failed, 8 disk full
"""

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    args.rest = rest
    command: Command = args.run
    if rest and command not in (_psql, _run):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return command(args)
    except StreamsError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streams.local",
        description="A real Apache Kafka and a real Postgres on this machine, without Docker.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_stack_commands(commands)
    psql = commands.add_parser("psql", help="psql in the embedded database; its own arguments may follow")
    psql.set_defaults(run=_psql, dir=None, json=False)
    run = commands.add_parser(
        "run", help="take a relay's firehose into Postgres, and end when all is there", add_help=False
    )
    run.set_defaults(run=_run)
    return parser


def _add_stack_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    described: list[tuple[str, Command, str]] = [
        ("up", _up, "start both unless they are up, and print where they are"),
        ("down", _down, "stop both; the data stays"),
        ("status", _status, "what is up: pids, ports, memory, disk (exit code 0 up, 3 down)"),
        ("env", _env, "print KAFKA_BOOTSTRAP_SERVERS=... and DATABASE_URL=... (exit code 3 when down)"),
    ]
    for name, run, text in described:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "--dir", type=Path, metavar="DIR", help="folder of data, logs and state (default: LOCAL_DIR, else .local)"
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)


def _stack(args: argparse.Namespace) -> Stack:
    return Stack(load_settings(local_dir=args.dir).local_dir, say=_tell)


def _tell(line: str) -> None:
    """Progress goes to stderr: stdout is for what a script reads."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _up(args: argparse.Namespace) -> int:
    stack = _stack(args)
    started = stack.up()
    if args.json:
        _print(json.dumps(stack.status().as_dict()))
        return 0
    _print(f"The embedded stack is up{'' if started else ' already'}, in {stack.folder}")
    _print(f"  Kafka     {stack.bootstrap_servers}")
    _print(f"  Postgres  {stack.postgres.address}  (`python -m streams.local env` has the password)")
    return 0


def _down(args: argparse.Namespace) -> int:
    stack = _stack(args)
    was_up = bool(stack.kafka.pids() or stack.postgres.pids())
    clean = stack.down()
    words = "was down already" if not was_up else "is down" if clean else "is down: a part did not stop and was killed"
    _print(
        json.dumps({"was_up": was_up, "clean": clean, "folder": str(stack.folder)})
        if args.json
        else f"The embedded stack {words}. Its data is in {stack.folder}"
    )
    return 0


def _status(args: argparse.Namespace) -> int:
    status = _stack(args).status()
    if args.json:
        _print(json.dumps(status.as_dict()))
    else:
        _print(f"The embedded stack in {status.folder} is {'up' if status.up else 'down'}")
        _print(_part_line("Kafka", status.kafka))
        _print(_part_line("Postgres", status.postgres))
    return 0 if status.up else EXIT_DOWN


def _part_line(name: str, part: PartStatus) -> str:
    data = f"data {part.data_bytes / 1e6:,.0f} MB"
    if not part.pids:
        return f"  {name:<9} down, {data}"
    state = "up" if part.up else "running, but it does not answer"
    pids = ", ".join(map(str, part.pids))
    return f"  {name:<9} {state}, {part.address}, pid {pids}, memory {part.resident_bytes / 1e6:,.0f} MB, {data}"


def _env(args: argparse.Namespace) -> int:
    stack = _stack(args)
    if not stack.is_up():
        _tell(f"error: The embedded stack in {stack.folder} is down: start it with `python -m streams.local up`.")
        return EXIT_DOWN
    environment = stack.environment()
    _print(
        json.dumps(environment) if args.json else "\n".join(f"{name}={value}" for name, value in environment.items())
    )
    return 0


def _run(args: argparse.Namespace) -> int:
    """Do what ``make run`` does, with options of its own. Imported here: the other commands need none of it."""
    from streams.local.run import main  # noqa: PLC0415

    return main(args.rest)


def _psql(args: argparse.Namespace) -> int:
    """Become psql: the terminal is its own."""
    stack = _stack(args)
    if not stack.is_up():
        _tell(f"error: The embedded stack in {stack.folder} is down: start it with `python -m streams.local up`.")
        return EXIT_DOWN
    psql, postgres = program_folder() / "psql", stack.postgres
    environment = {**os.environ, "PGPASSWORD": postgres.password}  # everybody can read a command line
    return os.execve(psql, [str(psql), postgres.address, *args.rest], environment)  # noqa: S606 (Postgres' own client)


if __name__ == "__main__":
    sys.exit(main())
