"""The mutants: single edits, each a bug that a person could have written, and the tests that must fail."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
FILE: Final = Path(__file__).with_name("mutants.toml")


@dataclass(frozen=True)
class Mutant:
    """``before`` stands in ``file`` exactly once and becomes ``after``; then each of ``tests`` (node ids) must fail.

    ``why`` says what a user would see.
    """

    name: str
    file: str
    before: str
    after: str
    why: str
    tests: tuple[str, ...]

    def problem(self, tree: Path) -> str | None:
        """Why the edit cannot be made in this tree, or None."""
        count = (tree / self.file).read_text().count(self.before)
        return None if count == 1 else f"{self.name}: `before` stands {count} times in {self.file}"

    def applied(self, tree: Path) -> str:
        """The file's text with the bug."""
        return (tree / self.file).read_text().replace(self.before, self.after)


def load() -> list[Mutant]:
    """All of them, in the file's order."""
    entries = tomllib.loads(FILE.read_text())["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
