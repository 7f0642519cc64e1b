"""The small time series of this process: pace, lag, memory, and what others use of the machine. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from streams.resources.others import others_in_words
from streams.status.process import MachineUse, Mode
from streams.text import UNKNOWN, number, printable_or_dash, share, size
from streams.ui.web.drawing import HEIGHT, Block, ceiling, line, place_stretch, plain
from streams.ui.web.figures import Figures
from streams.ui.web.history import SLOTS, History

#: Where a block begins in the strip, by its mode's speed: 0 is the strip's top.
_TOPS: Final = {"full": 0.0, "slow": 0.4, "waits": 0.75}


class Chart(msgspec.Struct, frozen=True):
    """A line over the last minutes; ``limit`` is where a dashed line is drawn: outside for none."""

    name: str
    now: str
    top: str
    line: str
    area: str
    limit: str = "-9"


class Charts(msgspec.Struct, frozen=True):
    """All charts. ``mode`` and ``why`` say what the throttle does now; kinds of ``modes``: full, slow, waits."""

    who: str
    mode: str
    why: str
    modes: tuple[Block, ...]
    series: tuple[Chart, ...]
    others: str


def charts(figures: Figures, history: History) -> Charts:
    """Return the charts of this process' history."""
    state = figures.state
    series = [_rate(history)]
    if figures.kind == "worker":
        series.append(_lag(history))
    series.append(_memory(history, state.memory.limit if state is not None else 0))
    series.append(_others(history))
    mode = state.mode if state is not None else Mode.STARTING
    return Charts(
        who=f"This {figures.kind}",
        mode=f"{mode.capitalize()}:",
        why=printable_or_dash(state.why if state is not None else getattr(figures, "why", ""), 200),
        modes=tuple(_mode(*stretch) for stretch in history.modes()),
        series=tuple(series),
        others=_who(state.machine if state is not None else None),
    )


def _who(machine: MachineUse | None) -> str:
    """Return who uses the machine besides us, as a sentence."""
    if machine is None:
        return ""
    words = printable_or_dash(others_in_words(machine.others, machine.top), 200)
    return f"{words[0].upper()}{words[1:]}."


def _rate(history: History) -> Chart:
    values = history.values(lambda sample: sample.rate)
    top = ceiling(values)
    return _chart("Events a second", _last(values, number), number(top), values, top)


def _lag(history: History) -> Chart:
    values = history.values(lambda sample: sample.lag)
    top = ceiling(values)
    return _chart("Messages waiting", _last(values, number), number(top), values, top)


def _memory(history: History, limit: int) -> Chart:
    values = history.values(lambda sample: sample.rss or None)
    top = max(limit * 1.15, max((value for value in values if value is not None), default=0.0), 1.0)
    chart = _chart("Memory", _last(values, size), size(top), values, top)
    return msgspec.structs.replace(chart, top=f"limit {size(limit)}", limit=plain(HEIGHT * (1 - limit / top)))


def _others(history: History) -> Chart:
    values = history.values(lambda sample: sample.others)
    return _chart("Machine used by others", _last(values, share), "100 %", values, 1.0)


def _chart(name: str, now: str, top: str, values: list[float | None], most: float) -> Chart:
    stroke, area = line(values, most, SLOTS)
    return Chart(name, now, top, stroke, area)


def _last(values: list[float | None], words: object) -> str:
    assert callable(words)
    return str(words(values[-1])) if values else UNKNOWN


def _mode(mode: Mode, begin: int, end: int) -> Block:
    x, width = place_stretch(begin, end, 0, SLOTS)
    y = _TOPS[mode.speed] * HEIGHT
    return Block(mode.speed, x, width, plain(y), plain(HEIGHT - y), mode)
