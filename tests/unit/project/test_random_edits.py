"""The random mutants: which edits there are, and that the table and the list of equivalents hold."""

from __future__ import annotations

import pytest

from tests.mutants.catalogue import PROJECT
from tests.mutants.edits import edits_of
from tests.mutants.random_edits import TESTS, WITHOUT_ASYNC, equivalents, unit_test


def edited(text: str) -> list[str]:
    return [edit.lines(text)[1] for edit in edits_of("x.py", text)]


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("0 <= é < b", ["1 <= é < b", "0 < é < b", "0 > é < b", "0 <= é <= b", "0 <= é >= b"]),
        ("a is not b", ["a is b"]),
        ("a not in b", ["a in b"]),
        ("(a) and (b or c)", ["(a) or (b or c)", "(a) and (b and c)"]),
        ("a + (b)", ["a - (b)"]),
        ("a += 5", ["a -= 5", "a += 4", "a += 6"]),
        ("a = -1", ["a = 1", "a = -0", "a = -2"]),
        ("a = not (b and c)", ["a = (b and c)", "a = not (b or c)"]),
        ("a = True", ["a = False"]),
        ("a = 0.5", ["a = -0.5", "a = 1.5"]),
        ("a = b if c else d", ["a = b if not (c) else d"]),
        ("a = [b for b in c if d]", ["a = [b for b in c if not (d)]"]),
        ("if a == b: pass", ["if a != b: pass"]),
        ("if a: pass", ["if not (a): pass"]),
        ("a = 101", []),
        ("assert a < b", []),
        ("a = f'{b + c}'", []),
        ("def f(a: 1 | 2) -> 3 | 4: pass", []),
        ("a: Literal[1] = b", []),
        ("isinstance(a, b | c)", []),
        ("@dataclass(frozen=True)\nclass A: pass", []),
    ],
)
def test_the_edits_of_a_line(line: str, becomes: list[str]) -> None:
    assert sorted(edited(line)) == sorted(becomes)


def test_an_edit_changes_one_place_and_knows_its_line() -> None:
    text = "# ä\nif a:\n    b = 1  # c\n"
    last = edits_of("x.py", text)[-1]
    assert (last.number(text), last.lines(text)) == (3, ("b = 1  # c", "b = 2  # c"))
    assert last.applied(text) == "# ä\nif a:\n    b = 2  # c\n"


def test_async_functions_can_be_left_out() -> None:
    text = "async def f(): return 1\ndef g(): return 2\n"
    assert len(edits_of("x.py", text)) == 4
    assert [edit.number(text) for edit in edits_of("x.py", text, with_async=False)] == [2, 2]


def test_the_modules_and_their_tests_exist() -> None:
    assert set(TESTS) >= WITHOUT_ASYNC
    assert [file for file in TESTS if not (PROJECT / file).is_file()] == []
    assert all(unit_test(name) for names in TESTS.values() for name in names)


def test_each_equivalent_is_an_edit_that_there_is_and_has_a_reason() -> None:
    """Take out an entry that is named here, or adapt its line: the module has changed."""
    listed = equivalents()
    assert all(entry.reason for entry in listed)
    possible = {
        (file, *edit.lines(text))
        for file in {entry.file for entry in listed}
        for text in [(PROJECT / file).read_text()]
        for edit in edits_of(file, text)
    }
    missing = [entry for entry in listed if (entry.file, entry.line, entry.becomes) not in possible]
    assert missing == []
