"""Relay to Kafka: ``python -m streams.ingest --days N`` replays the firehose into the topic and ends at the head.

The position is in the topic itself (its watermarks), so it is atomic with the data. Whatever is killed, the next ingest
resumes from the lowest of the last watermarks. This module is the command: arguments and exit codes
(``streams/ingestion/process.py`` has the rest).
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time

from streams import __version__
from streams.errors import StreamsError
from streams.settings import Settings, load_settings
from streams.text import EPOCH, parse_moment


def _time(text: str) -> int:
    try:
        moment = parse_moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid time (example: 2026-11-20T12:00:00Z)") from None
    if moment < EPOCH:
        raise argparse.ArgumentTypeError(f"{text!r} is before 1970")
    if moment > dt.datetime.now(dt.UTC) + dt.timedelta(days=1):  # our clock may be wrong
        raise argparse.ArgumentTypeError(f"{text!r} lies in the future")
    return int(moment.timestamp() * 1e6)


_EXAMPLES = """examples:
  python -m streams.ingest --days 7                  the last week, then end at the head
  python -m streams.ingest --days -1 --follow        all that the relay keeps, then live
  python -m streams.ingest --days 1 --restart        again, from a day ago
  python -m streams.ingest --days 1 --from-time 2026-11-20T12:00:00Z --relay wss://other.example/xrpc/...

exit codes: 0 done or stopped, 2 settings, 3 Kafka, 4 Postgres, 5 relay, 6 topic or schema is not ours,
7 another ingest holds the topic, 8 it does not fit on the disk"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streams.ingest",
        description="Replay a relay's firehose into Kafka; resumes where the topic ends. The README has every setting.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--days", type=int, help="days to replay: -1 is all that the relay keeps, 0 is off (default: BACKFILL_DAYS)"
    )
    parser.add_argument("--relay", metavar="URL", help="the relay's subscribeRepos endpoint (default: RELAY_URL)")
    parser.add_argument(
        "--restart", action="store_true", help="begin again at the point asked for, whatever the topic holds"
    )
    parser.add_argument("--follow", action="store_true", help="go on live after the head")
    parser.add_argument(
        "--from-time", type=_time, metavar="TIME", help="go on from this time (UTC), also with another relay"
    )
    parser.add_argument(
        "--standby", action="store_true", help="wait while another ingest holds the topic, then take over"
    )
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when standard input ends (for the process that starts us)"
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Return the exit code (README: exit codes)."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load_settings(backfill_days=arguments.days, relay_url=arguments.relay)
        if settings.backfill_days == 0:
            sys.stdout.write("Nothing to do: --days 0 is off. Give a number of days, or -1 for all.\n")
            return 0
        return _ingest(settings, arguments)
    except StreamsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _ingest(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run the process. What it runs is imported here: neither the help nor a refused argument needs it."""
    from streams.ingestion.process import run_process  # noqa: PLC0415
    from streams.ingestion.session import Options  # noqa: PLC0415
    from streams.sources.firehose.plan import Request  # noqa: PLC0415

    request = Request(settings.backfill_days, arguments.restart, arguments.from_time, time.time_ns() // 1000)
    options = Options(request, arguments.follow, arguments.standby)
    return run_process(settings, options, with_parent=arguments.with_parent)


if __name__ == "__main__":
    sys.exit(main())
