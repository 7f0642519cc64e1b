"""Runs cases one after the other, watches time and memory, and keeps what failed. A case depends on its number only."""

from __future__ import annotations

import base64
import faulthandler
import json
import signal
import statistics
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import psutil

from streams.resources.memory_watch import release_memory
from streams.simulator.recording import write_frames
from tests.fuzz import check, frames, messages, slices
from tests.fuzz.through import Watch, Worker, must

#: CPU seconds that one call of the product may take: for frames and slices of ordinary size, and for megabytes.
LIMIT: Final = 1.0
HEAVY_LIMIT: Final = 3.0
HEAVY_BYTES: Final = 2_000_000
#: Seconds of CPU until a call that does not return is interrupted (not by the clock: a busy machine may let nobody run
#: for so long); and seconds by the clock until, where even that does not help, the process ends.
HANG: Final = 30
DEAD_HANG: Final = 300
#: Cases between two looks at the clock, and at the memory, and the growth that is no noise any more, in MB.
LOOK_EVERY: Final = 500
SAMPLE_EVERY: Final = 2_000
MAX_GROWTH: Final = 50
#: Failures kept; a fault that happens everywhere must not fill the disk.
MAX_KEPT: Final = 50


@dataclass
class Failure:
    """A case that broke something."""

    number: int
    kind: str
    why: str


@dataclass
class Result:
    """What a run of one fuzzer saw. ``fates`` are what became of messages; RSS is in MB."""

    name: str
    cases: int = 0
    inputs: int = 0
    seconds: float = 0.0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    fates: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    longest: tuple[float, int, str] = (0.0, 0, "")
    samples: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """How much the memory grew after the warm-up (the first fifth), in MB: medians, for single cases are heavy."""
        settled = self.samples[len(self.samples) // 5 :]
        if len(settled) < 10:
            return 0.0
        part = max(3, len(settled) // 10)
        return statistics.median(settled[-part:]) - statistics.median(settled[:part])

    @property
    def passed(self) -> bool:
        return not self.failures and self.growth < MAX_GROWTH


class Fuzzer:
    """``name`` is ``frame`` or ``message``; failures go into ``folder``, where one is given."""

    def __init__(self, name: str, seed: int, folder: Path | None = None) -> None:
        self.name, self.seed, self._folder = name, seed, folder
        self._worker = Worker()
        self.result = Result(name)

    def run(self, start: int, count: int, seconds: float | None = None) -> Result:
        """The cases from ``start``; ``seconds`` ends the run early."""
        result, began, process = self.result, time.monotonic(), psutil.Process()
        _look(process, result)
        with _Alarm():
            for number in range(start, start + count):
                if number % LOOK_EVERY == 0:
                    faulthandler.dump_traceback_later(DEAD_HANG, exit=True)
                    if number % SAMPLE_EVERY == 0:
                        _look(process, result)
                    if seconds is not None and time.monotonic() - began > seconds:
                        break
                self.one(number)
        faulthandler.cancel_dump_traceback_later()
        result.seconds = time.monotonic() - began
        _look(process, result)
        return result

    def one(self, number: int) -> str | None:
        """One case; why it failed, if it did."""
        case = self.case(number)
        result = self.result
        Watch.reset()
        signal.setitimer(signal.ITIMER_PROF, HANG)
        try:
            outcome, fates = self._check(case, number)
            limit = HEAVY_LIMIT if _size(case) > HEAVY_BYTES else LIMIT
            must(Watch.longest < limit, f"a call that took {Watch.longest:.1f} s of CPU")
            why = None
        except Exception as error:
            outcome, fates, why = "FAILED", {}, f"{type(error).__name__}: {str(error)[:500]}"
            self._keep(case, number, traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        result.cases += 1
        result.inputs += len(case[1])
        result.outcomes.setdefault(case.kind, Counter())[outcome] += 1
        result.fates.update(fates)
        result.longest = max(result.longest, (Watch.longest, number, case.kind))
        if why is not None:
            result.failures.append(Failure(number, case.kind, why))
        return why

    def case(self, number: int) -> frames.Case | messages.Case:
        return frames.case(self.seed, number) if self.name == "frame" else messages.case(self.seed, number)

    def _check(self, case: frames.Case | messages.Case, number: int) -> tuple[str, dict[str, int]]:
        if isinstance(case, frames.Case):
            return check.check_case(case, number, self._worker)
        filtered = number % check.SINK_FILTERS_EVERY == 5
        fates = slices.check(self._worker, case.messages, Random(number), filtered=filtered)
        return " + ".join(sorted(fates)) if len(fates) < 2 else "several", fates

    def _keep(self, case: frames.Case | messages.Case, number: int, trace: str) -> None:
        if self._folder is None or len(self.result.failures) >= MAX_KEPT:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._folder / f"{self.name}-{self.seed}-{number}"
        if isinstance(case, frames.Case):
            write_frames(place.with_suffix(".frames"), case.frames)
        else:
            place.with_suffix(".jsonl").write_text("".join(json.dumps(_saved(m)) + "\n" for m in case.messages))
        place.with_suffix(".txt").write_text(f"{case.kind}\n\n{trace[-20_000:]}")


def _saved(message: Any) -> dict[str, Any]:
    """A message for a file: key and value as base64."""
    key, value = (None if part is None else base64.b64encode(part).decode() for part in (message.key, message.value))
    return {"offset": message.offset, "key": key, "value": value}


def _size(case: frames.Case | messages.Case) -> int:
    if isinstance(case, frames.Case):
        return sum(map(len, case.frames))
    return sum(len(message.value or b"") for message in case.messages)


def _look(process: psutil.Process, result: Result) -> None:
    """What is left when garbage and free pages are given back: the rest of what one heavy case took is no growth."""
    release_memory()
    result.samples.append(process.memory_info().rss / 1e6)


class HangError(Exception):
    """A call that did not return."""


class _Alarm:
    """The timer's signal raises HangError meanwhile."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGPROF, self._ring)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)

    @staticmethod
    def _ring(*_: object) -> None:
        raise HangError(f"no answer for {HANG} s of CPU")
