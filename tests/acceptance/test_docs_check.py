"""The check of the documents finds what a reader types, and what of it does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import docs_check
from tests.support.docs_check import Block, blocks, check_of, commands, problems
from tests.support.docs_commands import ByTest

DOCUMENT = """# A title

Text with `make demo` in it.

    make run        # the last day
    python -m streams.local psql -c "
      SELECT 1   -- it's the answer
      FROM x"
    faust -A streams.agents worker        Kafka → Postgres, it's said

    kcat -b host:9092 \\
      -t topic

1. an item
    that goes on, and is no block

```sql
SELECT 2;
```

```console
$ make status
The embedded stack is up
```

```json
{"no": "command"}
```
"""


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    monkeypatch.setattr(docs_check, "PROJECT", tmp_path)
    path = tmp_path / "doc.md"
    path.write_text(DOCUMENT)
    return list(blocks(path))


def test_blocks_are_found_with_their_language_and_place(found: list[Block]) -> None:
    assert [(block.language, block.line) for block in found] == [("", 5), ("sql", 18), ("console", 22), ("json", 27)]


def test_commands_are_one_line_each_without_comments(found: list[Block]) -> None:
    assert [(command.line, command.text) for command in commands(found[0])] == [
        (5, "make run"),
        (6, 'python -m streams.local psql -c " SELECT 1 -- it\'s the answer FROM x"'),
        (9, "faust -A streams.agents worker"),
        (11, "kcat -b host:9092 -t topic"),
    ]
    assert [command.text for command in commands(found[2])] == ["make status"]


def test_an_entry_stands_for_itself_and_dots_for_anything() -> None:
    assert isinstance(check_of("make run"), ByTest)
    assert check_of("make run BACKFILL_DAYS=1 RELAY_URL=ws://x") is not None
    assert check_of("make runs") is None
    assert check_of("rm -rf /") is None


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make run BACKFILL_DAYS=1", None),
        ("make walk", "no target walk"),
        ("make run BACKFILL_DAYS=many", "BACKFILL_DAYS=many"),
        ("make run BACKFILL_DAYZ=1", "no variable BACKFILL_DAYZ"),
        ("BACKFILL_DAYZ=1 make run", "unknown setting BACKFILL_DAYZ"),
        ("export BACKFILL_DAYS=7; make up && make dwn", "no target dwn"),
        (".venv/bin/python -m streams.local up | jq .", None),
        ("python -m streams.ingest --days 3 --follow", None),
        ("python -m streams.ingest --daze 3", "--daze is no option"),
        ("python -m streams.nothing --days 3", "ends with 1"),
        ("python examples/feed.py keyword x --limit 3", None),
        ("python examples/feed.py keyword x --limits 3", "--limits is no option"),
        ("docker-compose -f no-such.yml up -d", "there is no no-such.yml"),
        ("frobnicate --all", "'frobnicate' is no program"),
    ],
)
def test_what_does_not_exist_is_named(command: str, problem: str | None) -> None:
    found = problems(command)
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert problem in found[0]
