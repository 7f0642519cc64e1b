"""The geometry of the small pictures: a line over time, a strip of stretches, a bar. Pure; numbers only, as text.

Each picture is drawn in a box of WIDTH x HEIGHT that the page stretches to the room there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

WIDTH: Final = 600
HEIGHT: Final = 60
#: The narrowest that a stretch is drawn, so that a gap of a second in a week can be seen.
NARROWEST: Final = 2.0


class Block(msgspec.Struct, frozen=True):
    """A stretch in a strip: its colour says its kind, and so does its height."""

    kind: str
    x: str
    width: str
    y: str
    height: str
    said: str


def plain(value: float) -> str:
    """Return a number as SVG wants it, with no more digits than can be seen."""
    return f"{value:.4g}"


def line(values: Sequence[float | None], top: float, slots: int) -> tuple[str, str]:
    """Return the paths of a line and of the area below it, the newest value at the right; ``top`` is the box's height.

    A value that is not known interrupts the line.
    """
    strokes: list[str] = []
    areas: list[str] = []
    run: list[tuple[float, float]] = []
    begin = slots - len(values)

    def end_run() -> None:
        if not run:
            return
        points = " ".join(
            f"{plain(x)},{plain(y)}" for x, y in (run if len(run) > 1 else [run[0], (run[0][0] + 2, run[0][1])])
        )
        strokes.append(f"M{points.replace(' ', ' L')}")
        first, last = plain(run[0][0]), plain(run[-1][0])
        areas.append(f"M{first},{HEIGHT} L{points.replace(' ', ' L')} L{last},{HEIGHT} Z")
        run.clear()

    for index, value in enumerate(values):
        if value is None:
            end_run()
            continue
        x = (begin + index) / max(slots - 1, 1) * WIDTH
        run.append((x, HEIGHT - min(max(value / top if top > 0 else 0.0, 0.0), 1.0) * (HEIGHT - 2) - 1))
    end_run()
    return " ".join(strokes), " ".join(areas)


def ceiling(values: Sequence[float | None]) -> float:
    """Return a round number that is not less than any value: 1, 2 or 5 times a power of ten."""
    most = max((value for value in values if value is not None), default=0.0)
    step = 1.0
    while step * 10 <= most:
        step *= 10
    return next(step * factor for factor in (1, 2, 5, 10) if step * factor >= most)


def place_stretch(begin: float, end: float, whole_begin: float, whole_end: float) -> tuple[str, str]:
    """Return where a stretch of a strip begins and how wide it is."""
    whole = max(whole_end - whole_begin, 1e-9)
    left = (min(max(begin, whole_begin), whole_end) - whole_begin) / whole * WIDTH
    right = (min(max(end, whole_begin), whole_end) - whole_begin) / whole * WIDTH
    width = max(right - left, NARROWEST)
    return plain(min(left, WIDTH - width)), plain(width)


def bar(value: float, most: float) -> str:
    """Return the width of a bar, of 100. A value above 0 is wide enough to be seen."""
    if value <= 0 or most <= 0:
        return "0"
    return plain(max(1.5, min(value / most, 1.0) * 100))
