"""The docstring of each package names its modules, all of them and nothing else.

A module that was added, renamed or removed: put its line in the docstring of the package's ``__init__.py`` right,
``- ``name``: what it is for.`` Modules that belong together may share a line: ``- ``one``, ``other``: …``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

STREAMS = Path(__file__).resolve().parents[3] / "streams"
PACKAGES = sorted(path.parent for path in STREAMS.rglob("__init__.py"))
LINE = re.compile(r"^- ((?:``\w+``(?:, )?)+): \S", re.M)


def docstring(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(STREAMS.parent)))
def test_the_docstring_names_every_module(package: Path) -> None:
    text = docstring(package)
    named = [name for line in LINE.findall(text) for name in re.findall(r"\w+", line)]
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(named) == sorted(modules | packages)
    assert text.count("\n- ") == len(LINE.findall(text)), "a line of the list is not of the form ``- ``name``: text``"
