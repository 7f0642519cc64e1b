"""Every command of the documents, and what shows that it works. A command that is not here fails the check.

To add one: write it as it stands in the document (blanks do not count; the comment after it, and an explanation three
blanks away, are no part of it). `…` stands for anything: `make run …`. The first entry that fits is taken. Then one of

``Run(shape)``
    is executed, in a deployment that holds generated traffic under the default names; ``shape`` is a regular expression
    that its output must have, ``code`` its exit code. ``instead`` are replacements for what cannot be had here (a relay
    far away, a hundred thousand events); ``stop`` is for what does not end by itself: it is asked to as soon as this
    expression is in its output. It must leave the records as they are: other tests read them.
``ByTest("tests/…/test_x.py::test_name")``
    is executed by that test, which must exist.
``Parsed("why")``
    is not executed, and why. Its options, targets, services, files and settings must exist: that is checked for all.

Fenced blocks of SQL need no entry: they are executed as they are, by psql, in a transaction that is rolled back. One
that has an entry is executed without that transaction. SQL that is indented, not fenced, would be taken for shell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Run:
    """Executed here."""

    shape: str
    code: int = 0
    instead: tuple[tuple[str, str], ...] = ()
    stop: str = ""


@dataclass(frozen=True)
class ByTest:
    """Executed by a test of that name."""

    test: str


@dataclass(frozen=True)
class Parsed:
    """Not executed: needs what CI has not."""

    why: str


Check = Run | ByTest | Parsed

_RUN: Final = "tests/acceptance/test_run.py::"
_LETTERS: Final = "tests/integration/test_dead_letters.py::"
_STATUS: Final = "tests/acceptance/test_status.py::"
_REPLAY: Final = "tests/acceptance/test_replay.py::"
_STACK: Final = "tests/integration/test_local_stack.py::"
_ITSELF: Final = Parsed("it is what runs this check")
_SECURED: Final = ByTest("tests/acceptance/test_secured_kafka.py::test_everything_goes_through")
_CONTAINERS: Final = "tests/acceptance/test_containers.py::"
_QUICK: Final = ByTest(f"{_CONTAINERS}test_the_quick_start_of_the_readme")

#: What the documents call it -> what it is here.
_KAFKA: Final = ("localhost:9092", "$KAFKA_BOOTSTRAP_SERVERS")
_PSQL: Final = 'psql "$DATABASE_URL"'
_DEMO: Final = ("firehose.demo", "firehose.events")

COMMANDS: Final[dict[str, Check]] = {
    # -- settings
    "KAFKA_BOOTSTRAP_SERVERS=broker.example.org:9094": _SECURED,
    "KAFKA_SECURITY_PROTOCOL=SASL_SSL": _SECURED,
    "KAFKA_SASL_MECHANISM=SCRAM-SHA-512": _SECURED,
    "KAFKA_SASL_USERNAME=…": _SECURED,
    "KAFKA_SASL_PASSWORD=...": _SECURED,
    # -- make
    "make run": ByTest(f"{_RUN}test_a_run_takes_everything_and_says_so"),
    "make run BACKFILL_DAYS=…": ByTest(f"{_RUN}test_a_run_takes_everything_and_says_so"),
    "make run KAFKA_BOOTSTRAP_SERVERS=…": ByTest(f"{_RUN}test_a_run_takes_everything_and_says_so"),
    "make demo": ByTest(f"{_RUN}test_the_demo_is_exact_also_the_second_time"),
    "make up": ByTest(f"{_STACK}test_a_second_up_does_nothing"),
    "make down": ByTest(f"{_STACK}test_down_stops_and_up_again_has_the_data_on_the_same_ports"),
    "make status": ByTest(f"{_STACK}test_status_and_env_say_where_it_is"),
    "make test": _ITSELF,
    "make check": Parsed("lint, format, types and layers: the first part of `make test` in CI"),
    "make docs-check": _ITSELF,
    "make fuzz": Parsed("minutes; the short form of it is tests/unit/project/test_fuzz.py"),
    "make fuzz FUZZ=…": Parsed("the same, with other options"),
    "python -m tests.fuzz …": Parsed("the same, one case"),
    "python -m benchmarks.memory …": Parsed("a quarter of an hour; its short form is tests/acceptance/test_memory.py"),
    "make chaos": Parsed("a quarter of an hour; the short form of it is tests/acceptance/test_chaos.py"),
    "make mutants": Parsed("minutes; tests/unit/project/test_mutants.py checks that each can be made"),
    "python -m tests.mutants …": Parsed("the same"),
    "make mutants-random": Parsed("minutes; what it is made of is checked by tests/unit/project/test_random_edits.py"),
    "python -m tests.mutants.random_edits …": Parsed("minutes"),
    "make mutants-random …": Parsed("the same, with other options"),
    ".venv/bin/python -m tests.mutants …": Parsed("the same"),
    ".venv/bin/python -m pytest …": _ITSELF,
    "python -m benchmarks.growth …": Parsed("an hour; its parts are tests/unit/benchmarks/test_growth.py"),
    "python -m benchmarks.markdown": Parsed("what it prints is checked by tests/unit/benchmarks/test_hops.py"),
    "make bench": Parsed("minutes of measuring"),
    "make bench …": Parsed("minutes of measuring"),
    # -- the pipeline
    "python -m streams.ingest --days 7 [--follow] [--restart]": Run(
        r"mode", instead=(("7 [--follow] [--restart]", "7"),)
    ),
    "python -m streams.simulator --generate …": Run(r'"event": "ready"', instead=(("100000", "1000"),), stop="ready"),
    "python -m streams.local up | down | status | env | psql": Run(
        r"KAFKA_BOOTSTRAP_SERVERS=\S+:\d+\s+DATABASE_URL=postgresql://",
        instead=(("up | down | status | env | psql", "env"),),
    ),
    "faust -A streams.agents worker": Run(r"Progress: \d+ received", stop="Pace: "),
    "faust -A streams.agents status": Run(r"partition +applied up to"),
    "faust -A streams.agents status --watch": Run(r"partition +applied up to", stop="applied up to"),
    "faust -A streams.agents status --json": Run(r'"partitions": \[\{"partition": 0, '),
    "faust -A streams.agents status --check": Run(r"runs", code=9),
    "faust -A streams.agents pause …": ByTest(f"{_STATUS}test_status_agrees_with_the_servers_and_says_who_is_down"),
    "faust -A streams.agents resume": Run(r"Nothing was paused"),
    "faust -A streams.agents doctor": Run(r"ok +Kafka: "),
    "faust -A streams.agents config show": Run(r"KAFKA_TOPIC +firehose.events +default"),
    "faust -A streams.agents completion bash": Run(r"complete .*_faust_completion faust"),
    "faust -A streams.agents agents | tables": Run("firehose", instead=(("agents | tables", "agents"),)),
    "faust -A streams.agents rebuild --schema rebuilt": Run(r"rebuilt is filled: \d"),
    "faust -A streams.agents rebuild --schema rebuilt --compare": Run(r"rebuilt holds exactly what \S+ holds"),
    "faust -A streams.agents replay --from earliest --dry-run": Run(r"would be read again"),
    "faust -A streams.agents replay …": ByTest(f"{_REPLAY}test_what_is_set_back_is_read_again"),
    "faust -A streams.agents cursor show": Run(r"The cursor is the lowest watermark|No common position"),
    "faust -A streams.agents cursor …": ByTest(f"{_REPLAY}test_what_is_set_back_is_read_again"),
    "faust -A streams.agents rebuild --schema lately …": ByTest(f"{_REPLAY}test_a_rebuild_of_the_last_part"),
    "faust -A streams.agents rebuild …": ByTest(
        "tests/acceptance/test_rebuild.py::test_swapped_in_under_traffic_with_death_at_every_crash_point"
    ),
    # -- Postgres
    '.venv/bin/python -m streams.local psql -c "…"': Run(r"(?s)-\+-.*\(\d+ rows?\)"),
    'pg_dump -Fc -n firehose "$DATABASE_URL" > firehose.dump': Run(r"^$"),
    'pg_restore -d "$DATABASE_URL" firehose.dump': Run(
        r"CREATE TABLE firehose.records ", instead=(('-d "$DATABASE_URL"', "-f -"),)
    ),
    # -- docker-compose
    "docker-compose exec db psql -U postgres -d atproto -c …": Run(
        r"(?s)service.*\(\d+ rows?\)", instead=(("docker-compose exec db psql -U postgres -d atproto", _PSQL),)
    ),
    "docker-compose -f docker-compose.yml -f docker-compose.cluster.yml up -d": ByTest(
        f"{_CONTAINERS}test_three_brokers_and_four_workers"
    ),
    "docker-compose --profile monitoring up -d": Parsed("needs images that no test can have"),
    "docker-compose …": _QUICK,
    "export BACKFILL_DAYS=…": _QUICK,
    "python -m pytest tests/acceptance/test_containers.py": _ITSELF,
    "LONG=1 python -m pytest tests/acceptance/test_containers.py": _ITSELF,
    # -- keeping house
    "faust -A streams.agents copy …": Run(r"\S"),
    "faust -A streams.agents prune …": Run(r"\d"),
    "faust -A streams.agents dead-letters show PARTITION OFFSET --raw letter.bin": ByTest(
        f"{_LETTERS}test_the_commands"
    ),
    "faust -A streams.agents dead-letters …": Run(r"\d[\d,]* (in all|replayed|dead letters deleted)"),
    "faust -A streams.agents gaps list": Run(r"\d+ in all"),
    "faust -A streams.agents gaps list …": Run(r"^$|^(\{.*\}\n)+$"),
    "faust -A streams.agents indexes …": Run(r"\S"),
    "faust -A streams.agents views …": Run(r"\S"),
    "faust -A streams.agents aggregates …": Run(r"\S"),
    "pip install --upgrade .": Parsed("installs; there is nothing newer"),
    "psql …": Run(r"(?s)-\+-.*\(\d+ rows?\)"),
    # -- examples
    "export KAFKA_TOPIC=firehose.demo SINK_SCHEMA=firehose_demo": Parsed("sets variables"),
    ".venv/bin/python examples/trending.py --json": Run(r'^\{"since": "20.*"posts": \[\{"uri": "at://'),
    ".venv/bin/python examples/trending.py…": Run(
        r"(?s)Most liked posts\n +\d.*Fastest rising tags.*Most new followers\n +\d"
    ),
    ".venv/bin/python examples/feed.py keyword …": Run(
        r'^\{"feed": \[\{"post": "at://.*"\}\], "cursor": "\d+::at://', instead=(("butterfly", "morning"),)
    ),
    ".venv/bin/python examples/feed.py timeline …": Run(r'^\{"feed": \[\]\}'),  # nobody of ours
    ".venv/bin/python examples/consume.py … --json --count 10": Run(r'(?s)^(\{"did": .*?\}\n){10}taken: '),
    ".venv/bin/python examples/consume.py … --count 10": Run(r"(?s)^(did:\S+ .*\n)+taken: "),
    "kcat -b localhost:9092 -t firehose.demo -C …": Run(r'did:\S+ \{"did":"did:', instead=(_KAFKA, _DEMO)),
    "kcat -b localhost:9092 -G …": Run("rebalanced", instead=(_KAFKA, _DEMO), stop="rebalanced"),
    ".venv/bin/python -m pip install -e '.[examples]'": Parsed("installs; `make test` has installed the same"),
    ".venv/bin/python examples/export_parquet.py …": Run(r"^\d[\d,]* rows of \w+ in \w+.parquet, [\d,]+ bytes"),
    # -- SQL
    "BEGIN; ALTER SCHEMA firehose RENAME TO firehose_before; …": Run(
        r"(?s)ALTER SCHEMA.*UPDATE \d+.*ROLLBACK",
        instead=(
            (
                "BEGIN;",
                "BEGIN; CREATE SCHEMA IF NOT EXISTS rebuilt; "
                "CREATE TABLE IF NOT EXISTS rebuilt.sink_offsets (LIKE firehose.sink_offsets);",
            ),
            ("COMMIT;", "ROLLBACK;"),
        ),
    ),
}

#: Blocks that are no commands, by their first line: formats, trees, output.
NO_COMMANDS: Final = ('{"did": …, "time_us": …',)
