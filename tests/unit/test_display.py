"""What ``make run`` says at the end: no password, wherever the address has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from streams.local.display import Display, summary
from streams.settings import Settings
from streams.status.lag import Holdings, SinkLag


def said(folder: Path, dsn: str) -> list[str]:
    made = Settings(_env_file=None, local_dir=folder, database_url=SecretStr(dsn))  # type: ignore[call-arg]
    holdings = Holdings((("app.bsky.feed.like", 5),), 1, None, None, (), (), None)
    return summary(made, SinkLag((), 5, 5, 0, 0), holdings, Display(made)).splitlines()


@pytest.mark.parametrize(
    ("dsn", "data", "psql"),
    [
        ("postgresql://u:hunter2@h:1/d", "postgresql://u:***@h:1/d", "postgresql://u@h:1/d"),
        ("postgresql://h/d?user=u&password=hunter2", "postgresql://h/d?user=u&password=***", "postgresql://h/d?user=u"),
        ("postgresql://h/d?password=a%40hunter2", "postgresql://h/d?password=***", "postgresql://h/d"),
        ("postgresql://h/d?passfile=/f", "postgresql://h/d?passfile=/f", "postgresql://h/d?passfile=/f"),
    ],
)
def test_the_summary_has_no_password_and_a_command_that_works(tmp_path: Path, dsn: str, data: str, psql: str) -> None:
    lines = said(tmp_path, dsn)
    assert "hunter2" not in "\n".join(lines)
    assert f"  data          schema firehose in {data}" in lines
    assert lines[-1].startswith(f"  psql '{psql}' -c ")


def test_the_summary_says_what_was_passed_over(tmp_path: Path) -> None:
    made = Settings(_env_file=None, local_dir=tmp_path, database_url=SecretStr("postgresql://h/d"))  # type: ignore[call-arg]
    display = Display(made)
    display.heard({"event": "done", "passed_over": 49, "out_of_order": 1})
    text = summary(made, SinkLag((), 5, 5, 0, 0), Holdings((), 1, None, None, (), (), None), display)
    assert "  the relay     49 sent again and passed over, 1 out of order\n" in text
