"""Every command of the documents works: ``make docs-check``. The table of them is tests/support/docs_commands.py."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from streams.local.postgres import program_folder
from tests.acceptance.commands import Command, Finished, finish
from tests.acceptance.filled import NAMES, Filled
from tests.support import docs_check
from tests.support.docs_commands import Run

EXECUTED = docs_check.executed()
NOT_RUN = docs_check.not_run()
SQL = docs_check.sql_blocks()


def environment(filled: Filled) -> dict[str, str]:
    """A reader's shell after `export $(python -m streams.local env)`, Postgres' own programs at hand."""
    path = [str(Path(sys.executable).parent), str(program_folder()), os.environ["PATH"]]
    servers = {"KAFKA_BOOTSTRAP_SERVERS": filled.bootstrap_servers, "DATABASE_URL": filled.dsn}
    return {**filled.environment, **servers, "PATH": os.pathsep.join(path), "PAGER": "cat"}


@pytest.fixture(scope="module")
def clone(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has cloned and set up, and where he stands."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("examples", "streams", "docs", "README.md", "pyproject.toml"):
        (folder / name).symlink_to(docs_check.PROJECT / name)
    return folder


def test_every_command_is_in_the_table() -> None:
    missing = [str(command) for command in docs_check.shell_commands() if docs_check.check_of(command.text) is None]
    assert not missing, "Not in COMMANDS of tests/support/docs_commands.py, whose docstring says how:\n" + "\n".join(
        missing
    )
    assert len(EXECUTED) > 5


def test_tests_that_the_table_names_exist() -> None:
    assert docs_check.missing_tests() == []


@pytest.mark.parametrize("command", NOT_RUN, ids=str)
def test_what_is_not_executed_names_what_exists(command: docs_check.Command) -> None:
    assert docs_check.problems(command.text) == [], str(command)


def test_settings_that_stand_together_go_together() -> None:
    blocks = docs_check.setting_blocks()
    assert any("KAFKA_SASL_PASSWORD" in block.text for block in blocks)
    assert [problem for block in blocks for problem in docs_check.block_problems(block)] == []


@pytest.mark.parametrize(("command", "check"), EXECUTED, ids=[str(command) for command, _ in EXECUTED])
async def test_a_command_does_what_the_document_says(
    filled: Filled, clone: Path, command: docs_check.Command, check: Run
) -> None:
    text = command.text
    for old, new in check.instead:
        assert old in text, f"the table replaces {old!r}, which is not in {text}"
        text = text.replace(old, new)
    program = text.removeprefix(".venv/bin/").split()[0]
    if program == "kcat" and shutil.which(program) is None:
        pytest.skip("kcat is not installed")
    done = await shell(filled, clone, text, check.stop)
    assert done.code == check.code, f"{command}\n{done.output}{done.errors}"
    assert re.search(check.shape, done.output + done.errors), f"{command}\n{done.output}{done.errors}"
    assert "Traceback" not in done.errors


async def shell(filled: Filled, folder: Path, text: str, stop: str) -> Finished:
    """What a shell makes of it; with ``stop`` it is asked to end (SIGTERM) once that is in its output."""
    arguments = ["bash", "-o", "pipefail", "-c", text]
    if not stop:
        return await finish(arguments, environment(filled), folder)
    running = Command("documented", arguments, environment(filled), folder)
    try:
        await running.line(stop)
        running.process.terminate()
        return Finished(await running.ended(), running.output, "")
    finally:
        running.kill()


@pytest.mark.parametrize("block", SQL, ids=lambda block: f"{block.document}:{block.line}")
async def test_sql_runs_in_the_filled_database(filled: Filled, clone: Path, block: docs_check.Command) -> None:
    check = docs_check.check_of(" ".join(block.text.split()))
    script = clone / "block.sql"
    text = block.text
    if isinstance(check, Run):
        for old, new in check.instead:
            assert old in text, f"the table replaces {old!r}, which is not in {text}"
            text = text.replace(old, new)
    else:
        text = f"BEGIN;\n{text}\n;ROLLBACK;\n"
    script.write_text(text)
    psql = ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", str(script), filled.dsn]
    done = await finish(psql, environment(filled), clone)
    assert done.code == 0, f"{block}\n{done.errors}"
    assert re.search(check.shape if isinstance(check, Run) else "", done.output), f"{block}\n{done.output}"


def test_the_names_are_the_readmes() -> None:
    """The filled deployment is the one that the documents speak of."""
    readme = (docs_check.PROJECT / "README.md").read_text()
    assert [name for name in NAMES.values() if name not in readme] == []
