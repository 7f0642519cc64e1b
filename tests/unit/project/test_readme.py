"""The README's tables say what the code says: every setting with its default, every exit code."""

from __future__ import annotations

import inspect
from pathlib import Path

from pydantic import SecretStr

from streams import errors
from streams.settings import PROFILES, Settings

README = (Path(__file__).parents[3] / "README.md").read_text()


def default_text(default: object) -> str:
    if default is None or default == ():
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    assert not isinstance(default, SecretStr)
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_every_setting_stands_in_the_options_table() -> None:
    rows = [
        f"| `{name.upper()}` | {default_text(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    missing = [row for row in rows if row not in README]
    assert not missing, "README.md lacks these rows:\n" + "\n".join(rows)
    assert README.count("\n| `BACKFILL_") + README.count("\n| `KAFKA_") == sum(
        name.startswith(("backfill_", "kafka_")) for name in Settings.model_fields
    )


def test_the_profiles_are_as_the_readme_says() -> None:
    for name, preset in PROFILES.items():
        values = [str(value).lower() if isinstance(value, bool) else str(value) for value in preset.values()]
        assert f"| `{name}` | {' | '.join(values)} |" in README


def test_every_exit_code_stands_in_its_table() -> None:
    codes = {
        error.exit_code for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)
    } | {0, *(value for name, value in vars(errors).items() if name.startswith("EXIT_"))}
    for code in codes:
        assert f"\n| {code} | " in README, f"exit code {code} is not in the README"
    listed = {int(row.split("|")[1]) for row in README.split("## Exit codes")[1].split("## ")[0].splitlines()
              if row.startswith("| ") and row.split("|")[1].strip().isdigit()}  # fmt: skip
    assert listed == codes | {1}, "and it has no other"
