"""Nothing breaks the style (tests/style.py has the rules)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.style import RULES, Found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_nothing_breaks_the_rule(rule: Callable[[], Found]) -> None:
    """``python -m tests.style`` prints all cases of all rules."""
    assert dict(rule()) == {}
