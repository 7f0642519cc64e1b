"""The tables of README.md and docs/settings.md agree with the code: every setting with its default, every exit code."""

from __future__ import annotations

import inspect
from pathlib import Path

from pydantic import SecretStr

from streams import errors
from streams.settings import PROFILES, Settings

PROJECT = Path(__file__).parents[3]
README = (PROJECT / "README.md").read_text()
SETTINGS = (PROJECT / "docs" / "settings.md").read_text()
TABLES = (PROJECT / "docs" / "tables.md").read_text()


def default_text(default: object) -> str:
    if default is None or default == ():
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    assert not isinstance(default, SecretStr)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def setting_rows() -> list[str]:
    return [
        f"| `{name.upper()}` | {default_text(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


def test_every_setting_stands_in_the_table_of_settings() -> None:
    rows = setting_rows()
    missing = [row for row in rows if row not in SETTINGS]
    assert not missing, "docs/settings.md lacks these rows:\n" + "\n".join(rows)
    assert SETTINGS.count("\n| `BACKFILL_") + SETTINGS.count("\n| `KAFKA_") == sum(
        name.startswith(("backfill_", "kafka_")) for name in Settings.model_fields
    )


def test_the_readmes_settings_are_rows_of_that_table() -> None:
    shown = [row for row in README.split("## Settings")[1].split("\n## ")[0].splitlines() if row.startswith("| `")]
    assert len(shown) > 5
    assert [row for row in shown if row not in setting_rows()] == []


def test_the_readmes_views_are_rows_of_the_table_of_views() -> None:
    shown = [row for row in README.split("## A first query")[1].split("\n## ")[0].splitlines() if row.startswith("| `")]
    assert len(shown) > 3
    assert [row for row in shown if row not in TABLES.splitlines()] == []


def test_the_profiles_are_as_documented() -> None:
    for name, preset in PROFILES.items():
        values = [str(value).lower() if isinstance(value, bool) else str(value) for value in preset.values()]
        assert f"| `{name}` | {' | '.join(values)} |" in SETTINGS


def test_every_exit_code_stands_in_its_table() -> None:
    codes = {
        error.exit_code for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)
    } | {0, *(value for name, value in vars(errors).items() if name.startswith("EXIT_"))}
    for code in codes:
        assert f"\n| {code} | " in README, f"exit code {code} is not in the README"
    listed = {int(row.split("|")[1]) for row in README.split("## Exit codes")[1].split("## ")[0].splitlines()
              if row.startswith("| ") and row.split("|")[1].strip().isdigit()}  # fmt: skip
    assert listed == codes | {1}, "and it has no other"
