"""No new break of the style, and none allowed that is gone (tests/style.py has the rules)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.style import RULES, Found, allowed

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


@each_rule
def test_nothing_new_breaks_the_rule(rule: Callable[[], Found]) -> None:
    assert dict(rule() - allowed().get(rule.__name__, Counter())) == {}


@each_rule
def test_what_is_allowed_only_shrinks(rule: Callable[[], Found]) -> None:
    """To mend: ``python -m tests.style --write``, and see that the list has become shorter."""
    assert dict(allowed().get(rule.__name__, Counter()) - rule()) == {}


def test_the_list_names_rules() -> None:
    assert set(allowed()) <= {rule.__name__ for rule in RULES}
