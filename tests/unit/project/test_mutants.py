"""The mutants have not rotted: each edit can still be made, and the tests that must catch it exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.mutants.catalogue import PROJECT, Mutant, load

MUTANTS = load()


def test_there_are_enough_and_each_has_its_name() -> None:
    assert len(MUTANTS) >= 28
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_each_mutant_stands_once_in_the_scorecard() -> None:
    card = (PROJECT / "tests/mutants/RESULTS.md").read_text().split("\n## The scorecard\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z0-9-]+) \| `([^`]+)` \| (.+) \| `\w+` \| (?:[\d.]+|–) \|$", card, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(mutant.name for mutant in MUTANTS)
    told = {name: (file, why) for name, file, why in rows}
    for mutant in MUTANTS:
        assert told[mutant.name] == (mutant.file, mutant.why)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_edit_can_be_made(mutant: Mutant) -> None:
    assert mutant.problem(PROJECT) is None
    assert mutant.why
    text = mutant.applied(PROJECT)
    assert text != (PROJECT / mutant.file).read_text()
    if mutant.file.endswith(".py"):
        compile(text, mutant.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_catch_it_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        tree = ast.parse((PROJECT / path).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name.partition("[")[0] in defined, test
