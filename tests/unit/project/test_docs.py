"""The documents name files, functions and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

PROJECT = Path(__file__).resolve().parents[3]
TOP = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
DOCUMENTS = [*TOP, *sorted((PROJECT / "docs").rglob("*.md")), *sorted((PROJECT / "tests").rglob("RESULTS.md"))]
#: A file of the project in backticks, and perhaps `:name` of what stands in it.
NAMED = re.compile(r"`((?:streams|tests|docs|benchmarks|requirements|\.ci)/[\w./-]+|[\w-]+\.toml|Makefile)(?::(\w+))?`")
TEST = re.compile(r"`(test_\w+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\(([^)#:]*)#([^)]+)\)")


def defined(name: str, text: str) -> bool:
    """Whether a Python or SQL file defines something of that name."""
    return (
        re.search(
            rf"^\s*(?:(?:async )?def|class|CREATE FUNCTION|CREATE OR REPLACE FUNCTION|CREATE TABLE) {name}\b",
            text,
            re.M,
        )
        is not None
    )


def newest(name: str) -> str:
    """Return the last migration that defines something of that name."""
    files = sorted((PROJECT / "streams" / "postgres" / "migrations").glob("*.sql"), reverse=True)
    return next(str(path.relative_to(PROJECT)) for path in files if defined(name, path.read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_files_and_their_functions_exist(document: Path) -> None:
    named = NAMED.findall(document.read_text())
    missing = [path for path, _ in named if not (PROJECT / path).exists()]
    assert missing == []
    undefined = [(path, name) for path, name in named if name and not defined(name, (PROJECT / path).read_text())]
    assert undefined == []
    replaced = [(path, name) for path, name in named if name and "/migrations/" in path and path != newest(name)]
    assert replaced == [], "a later migration defines it anew"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert [to for to in LINK.findall(document.read_text()) if not (document.parent / to).exists()] == []


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_to_headings_that_exist(document: Path) -> None:
    for to, wanted in ANCHOR.findall(document.read_text()):
        text = ((document.parent / to) if to else document).read_text()
        assert wanted in [anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)], f"{to}#{wanted}"


def test_tests_that_are_named_exist() -> None:
    tests = "\n".join(path.read_text() for path in (PROJECT / "tests").rglob("test_*.py"))
    named = {name for document in DOCUMENTS for name in TEST.findall(document.read_text())}
    assert len(named) > 30
    assert sorted(name for name in named if not defined(name, tests)) == []


def test_every_invariant_says_what_shows_it() -> None:
    text = (PROJECT / "docs" / "invariants.md").read_text()
    rules = re.split(r"^\d+\. ", text, flags=re.M)[1:]
    assert len(rules) >= 10
    for rule in rules:
        assert NAMED.search(rule) or TEST.search(rule), rule
        assert TEST.search(rule), rule


def test_every_decision_is_listed_and_has_its_parts() -> None:
    records = sorted((PROJECT / "docs" / "decisions").glob("0*.md"))
    listed = LINK.findall((PROJECT / "docs" / "decisions" / "README.md").read_text())
    assert listed == [record.name for record in records]
    for number, record in enumerate(records, 1):
        text = record.read_text()
        assert text.startswith(f"# {number}. "), record.name
        assert re.search(r"^Date: 20\d\d-\d\d-\d\d$", text, re.M), record.name
        assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences"], record.name


def test_the_picture_is_well_formed() -> None:
    picture = PROJECT / "docs" / "way-of-an-event.svg"
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert "prefers-color-scheme: dark" in picture.read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_lines_are_short_outside_of_tables(document: Path) -> None:
    lines = document.read_text().splitlines()
    assert [line for line in lines if len(line) > 160 and not line.startswith("|")] == []
