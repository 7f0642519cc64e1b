"""The collections that are wanted: BACKFILL_COLLECTIONS and INGEST_COLLECTIONS as one question. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

#: Collections are hostile strings without end: the answers remembered are bounded.
MAX_REMEMBERED: Final = 10_000


def compile_patterns(patterns: tuple[str, ...]) -> Callable[[str], bool] | None:
    """Return a test of a collection: does it match one of the patterns (``*``: any text)? None without a pattern.

    For a collection that was tested before, the answer is looked up in a dict.
    """
    if not patterns:
        return None
    matches = re.compile("|".join(re.escape(pattern).replace(r"\*", ".*") for pattern in patterns), re.DOTALL).fullmatch
    answers: dict[str, bool] = {}

    def wanted(collection: str) -> bool:
        answer = answers.get(collection)
        if answer is None:
            if len(answers) >= MAX_REMEMBERED:
                answers.clear()
            answer = answers[collection] = matches(collection) is not None
        return answer

    return wanted
