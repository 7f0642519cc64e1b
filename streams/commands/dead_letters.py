"""``faust -A streams.agents dead-letters``: what could not become rows is looked at, replayed, or thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from streams.commands import options
from streams.commands.runner import open_database, run_command
from streams.errors import SettingsError
from streams.maintenance.dead_letters import store
from streams.maintenance.dead_letters.replay import Replayed, Replayer
from streams.maintenance.dead_letters.store import LetterFilter
from streams.maintenance.dead_letters.text import description
from streams.messages import LetterKind
from streams.protocol.collection_filter import compile_patterns
from streams.settings import Settings
from streams.text import format_time, printable

#: Seconds between two lines of progress.
TELL_EVERY: Final = 5.0

_EPILOG = """\b
Examples:
  faust -A streams.agents dead-letters list --summary
  faust -A streams.agents dead-letters list --reason "Postgres refuses" --since 2026-01-31
  faust -A streams.agents dead-letters show 0 12345 --raw frame.bin
  faust -A streams.agents dead-letters replay --reason "Postgres refuses"
  faust -A streams.agents dead-letters purge --before 2026-01-01

\b
They are those of the topic in KAFKA_TOPIC. Workers may run meanwhile."""


def _something(_: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Refuse an empty text: it is in every reason, and was meant to be a variable's value."""
    if text is not None and not text.strip():
        raise click.BadParameter("it is empty, which would mean all", param=option)
    return text


#: The options that say which letters are meant, in the order of their help.
_FILTERS: Final = (
    click.option(
        "--reason", metavar="TEXT", callback=_something, help="Whose reason has this in it, in capitals or not."
    ),
    click.option("--did", metavar="DID", help="Of this account, where it is known."),
    click.option("--collection", metavar="NSID", help="Of this collection, where it is known."),
    options.partition,
    options.since,
    options.before,
)


def _filtered(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a LetterFilter."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


@click.group("dead-letters", epilog=_EPILOG)
def command() -> None:
    """Dead letters, that is frames, operations and messages that could not become rows: list, show, replay, purge."""


@command.command("list")
@_filtered
@options.limit
@click.option("--summary", is_flag=True, help="Only how many there are of each reason.")
@options.as_json
def list_letters(limit: int, *, summary: bool, as_json: bool, **which: Any) -> None:  # noqa: ANN401
    """The letters, the newest first, and how many there are of each reason."""

    async def main(settings: Settings) -> None:
        asked = LetterFilter(settings.kafka_topic, **which)
        async with open_database(settings) as database:
            rows = [] if summary else await store.newest(database, asked, limit)
            reasons = await store.by_reason(database, asked)
        if as_json:
            options.json_lines(reasons if summary else rows)
            return
        for row in rows:
            click.echo(_line(row))
        total = sum(reason["count"] for reason in reasons)
        click.echo(f"{total:,} in all." if summary else options.more(len(rows), total))
        for reason in reasons if summary else reasons[:10]:
            click.echo(f"{reason['count']:>9,} × {printable(reason['reason'])} (last {format_time(reason['last'])})")
        if not summary and len(reasons) > 10:
            click.echo(f"          and {len(reasons) - 10:,} more reasons: --summary has them all.")

    run_command(main)


@command.command()
@click.argument("partition", type=click.IntRange(0, 2**31 - 1))
@click.argument("offset", type=click.IntRange(0, 2**63 - 1))
@click.option("--raw", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the payload's bytes to this file.")  # fmt: skip
def show(partition: int, offset: int, raw: Path | None) -> None:
    """All of the letter at OFFSET of PARTITION, its payload readable."""

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            letter = await store.find(database, settings.kafka_topic, partition, offset)
        if letter is None:
            raise SettingsError(f"There is no dead letter at {settings.kafka_topic}/{partition}, offset {offset}.")
        for line in description(letter):
            click.echo(line)
        if raw is not None:
            _write(raw, letter.payload)

    run_command(main)


@command.command()
@_filtered
@click.option("--json", "as_json", is_flag=True, help="The counts as one line of JSON, and no progress.")
def replay(*, as_json: bool, **which: Any) -> None:  # noqa: ANN401
    """Try the letters again, after what made them dead was mended: all of them, or those that the options say.

    Each ends where it belongs, as if it had just been read: applied; skipped, where what we hold is newer or its
    account was deleted; or dead again, with its new reason. What cannot be replayed stays as it is: an operation whose
    frame was not kept, and payloads that were cut at 256 KB.
    """

    async def main(settings: Settings) -> None:
        async with open_database(settings) as database:
            replayer = Replayer(
                database,
                settings.sink_group,
                compile_patterns(settings.backfill_collections),
                compile_patterns(settings.ingest_collections),
            )
            progress = _Progress()
            asked = LetterFilter(settings.kafka_topic, **which)
            done = await replayer.replay(asked, (lambda _: None) if as_json else progress.tell)
        if as_json:
            options.json_lines([_counts(done)])
            return
        click.echo(_sentence(done))
        for why, number in done.kept.most_common():
            click.echo(f"  not replayable: {number:,} because {why}.")

    run_command(main)


@command.command()
@_filtered
@click.option("--all", "everything", is_flag=True, help="All letters of the topic.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(*, everything: bool, yes: bool, **which: Any) -> None:  # noqa: ANN401
    """Delete letters for good. Their bytes are nowhere else once the topic and the relay have forgotten them."""

    async def main(settings: Settings) -> int:
        asked = LetterFilter(settings.kafka_topic, **which)
        if asked.everything != everything:
            raise SettingsError("Say which letters, for example --before 2026-01-31; or --all, and nothing else.")
        async with open_database(settings) as database:
            number, now = await store.count(database, asked)
            if number and not yes and not _agreed(f"Delete {number:,} dead letters of {settings.kafka_topic}?"):
                click.echo("Nothing was deleted.")
                return 1
            # Only what was counted: what comes while one thinks about it stays.
            before = now if asked.before is None else min(now, asked.before)
            gone = await store.purge(database, replace(asked, before=before)) if number else 0
        click.echo(f"{gone:,} dead letters deleted.")
        return 0

    run_command(main)


def _write(path: Path, payload: bytes) -> None:
    """Write the file. Raises SettingsError."""
    try:
        path.write_bytes(payload)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from None


def _agreed(question: str) -> bool:
    """Return True where the person at the terminal agrees; False where there is nobody to ask."""
    try:
        return click.confirm(question)
    except click.Abort:
        click.echo()
        return False


def _line(row: dict[str, Any]) -> str:
    at = f"{row['partition']}/{row['offset']}"
    place = "/".join(printable(row[name], 80) for name in ("did", "collection", "rkey") if row[name] is not None) or "-"
    kind = printable(row["kind"] or LetterKind.FOREIGN, 40)
    return f"{format_time(row['created_at'])}  {at:12}  {kind:9}  {place}: {printable(row['reason'], 200)}"


def _counts(done: Replayed) -> dict[str, Any]:
    return {
        "replayed": done.replayed, "applied": done.applied, "skipped": done.skipped, "dead": done.dead,
        "not_replayable": done.kept.total(), "why": dict(done.kept),
    }  # fmt: skip


def _sentence(done: Replayed) -> str:
    return (
        f"{done.replayed:,} replayed: {done.applied:,} applied, {done.skipped:,} skipped (superseded, filtered or "
        f"erased), {done.dead:,} dead again, {done.kept.total():,} not replayable."
    )


class _Progress:
    """A line now and then."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def tell(self, done: Replayed) -> None:
        if time.monotonic() - self._said >= TELL_EVERY:
            self._said = time.monotonic()
            click.echo(f"[REPLAY] so far {_sentence(done)}")
