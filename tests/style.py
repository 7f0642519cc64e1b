"""The style of CONTRIBUTING.md, as far as a program can see it: ``python -m tests.style`` prints what breaks a rule."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = sorted((PROJECT / "streams").rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("*.py"))
DOCUMENTS = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]

LONGEST_FUNCTION = 50
LONGEST_FILE = 500
LONGEST_LINE_OF_MARKDOWN = 160

#: Names that told nothing, or several things: each has a better one now. Without their leading underscores.
REMOVED_CLASSES = frozenset({
    "Beside", "Begin", "Held", "Host", "Left", "Look", "Outlet", "PartitionStanding", "Patience", "Reading", "Replay",
    "RunReader", "RunStart", "Seen", "Self", "Silence", "SinkStanding", "Standing", "StandingReader", "Told", "Wanted",
    "Which",
})  # fmt: skip
REMOVED_FUNCTIONS = frozenset({
    "iso", "mark_with", "marked", "marking", "moment", "room", "settle", "shown", "span", "standings", "stranger",
    "told",
})  # fmt: skip
#: Code that decides by a sentence meant for people.
DECIDES_BY_TEXT = (
    re.compile(r'[!=]= "(?:head|stopped)"'),
    re.compile(r'\.(?:r?split|r?partition)\("[:;] "'),
    re.compile(r"\breason\.(?:startswith|endswith|split|r?partition)\("),
    re.compile(r"\bstr\((?:error|exc|e)\)\.(?:startswith|endswith|r?split|r?partition)\("),
)
#: "X is no Y" of a value that is not valid. "There is no topic T" is plain English: T does not exist.
IS_NO = re.compile(r"(?<![Tt]here )\bis no \w+")
BEGINS_WRONG = re.compile(r"(?:What|Whether)\b")


@dataclass(frozen=True)
class Source:
    """A file of the program. ``strings`` are its string literals, without docstrings."""

    path: str
    text: str
    tree: ast.Module = field(compare=False)

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (node for node in self.nodes() if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in self.nodes() if isinstance(node, ast.ClassDef))

    def docstrings(self) -> Iterator[str]:
        for node in self.nodes():
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""

    def strings(self) -> Iterator[str]:
        statements = (node.value for node in self.nodes() if isinstance(node, ast.Expr))
        documented = {id(value) for value in statements if isinstance(value, ast.Constant)}
        for node in self.nodes():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
                yield node.value


@cache
def sources() -> tuple[Source, ...]:
    found = []
    for path in SOURCES:
        text = path.read_text()
        found.append(Source(str(path.relative_to(PROJECT)), text, ast.parse(text)))
    return tuple(found)


Found = Counter[str]


def public_class_names_that_stand_twice() -> Found:
    """Count, by name, the public classes of the same name beyond the first."""
    names = Counter(node.name for source in sources() for node in source.classes() if not node.name.startswith("_"))
    return Counter({name: count - 1 for name, count in names.items() if count > 1})


def long_functions() -> Found:
    return Counter(
        f"{source.path}:{node.name}"
        for source in sources()
        for node in source.functions()
        if (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    )


def long_files() -> Found:
    return Counter(
        str(path.relative_to(PROJECT))
        for path in [*SOURCES, *TESTS]
        if len(path.read_text().splitlines()) > LONGEST_FILE
    )


def long_lines_of_markdown() -> Found:
    """Count the long lines by document, without tables, code, and lines that only a link makes long."""
    found: Found = Counter()
    for path in DOCUMENTS:
        is_code = False
        for line in path.read_text().splitlines():
            is_code ^= line.startswith("```")
            without_targets = re.sub(r"\]\([^)]*\)", "]", line)
            if not is_code and len(without_targets) > LONGEST_LINE_OF_MARKDOWN and not line.lstrip().startswith("|"):
                found[str(path.relative_to(PROJECT))] += 1
    return found


def docstrings_that_begin_with_what_or_whether() -> Found:
    return Counter(source.path for source in sources() for text in source.docstrings() if BEGINS_WRONG.match(text))


def removed_names() -> Found:
    """Count the definitions that have one of the removed names, by file and name."""
    found: Found = Counter()
    for source in sources():
        for node in source.nodes():
            is_class = isinstance(node, ast.ClassDef) and node.name.strip("_") in REMOVED_CLASSES
            is_function = (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in REMOVED_FUNCTIONS
            )
            if is_class or is_function:
                found[f"{source.path}:{node.name}"] += 1  # type: ignore[attr-defined]
    return found


def strings_that_say_is_no() -> Found:
    return Counter(
        {
            source.path: count
            for source in sources()
            if (count := sum(len(IS_NO.findall(text)) for text in source.strings()))
        }
    )


def decisions_by_text() -> Found:
    return Counter(
        {
            source.path: count
            for source in sources()
            if (count := sum(len(pattern.findall(source.text)) for pattern in DECIDES_BY_TEXT))
        }
    )


RULES: tuple[Callable[[], Found], ...] = (
    public_class_names_that_stand_twice,
    long_functions,
    long_files,
    long_lines_of_markdown,
    docstrings_that_begin_with_what_or_whether,
    removed_names,
    strings_that_say_is_no,
    decisions_by_text,
)


def main() -> None:
    print(json.dumps({rule.__name__: dict(sorted(rule().items())) for rule in RULES}, indent=2))


if __name__ == "__main__":
    main()
