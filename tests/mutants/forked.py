"""Trials of one module, each in a process forked from this one: what is imported once is there for all of them.

``python -m tests.mutants.forked`` reads one trial a line, as JSON, and answers each with a line. It imports pytest and
the libraries; nothing of ours. So a child finds the edited module in the place of the file, and no file is written:
what is compiled stays valid.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

import pytest

from tests.mutants.trial import OPTIONS

#: What tests and the modules use of others: imported before the first fork.
LIBRARIES: Final = (
    "aiohttp", "aiokafka", "asyncpg", "cbor2", "hypothesis", "libipld", "msgspec", "orjson", "psutil",
    "pydantic_settings", "pytest_asyncio", "rich.console", "structlog", "websockets",
    "hypothesis.strategies", "unittest.mock",
)  # fmt: skip
#: Bytes of address space of a trial: an edit may make a loop that collects without an end.
MEMORY: Final = 4 << 30

Outcome = Literal["survived", "caught", "hung", "broken"]


class EditedModule(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Finds one module, and loads it from a text in the place of its file."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        super().__init__(name, str(path))
        self._text = text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the edited module, and of no other."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> object:
        """Return the code of the text; no cached one is read or written."""
        return compile(self._text, self.path, "exec", dont_inherit=True)


def run(file: str, text: str, tests: Sequence[str], seconds: float) -> tuple[Outcome, str]:
    """Run the tests in a fork in which the module has this text. Returns the outcome and what pytest wrote."""
    output = Path("trial.txt")
    pid = os.fork()
    if pid == 0:
        _child(file, text, tests, output)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return _outcome(os.waitstatus_to_exitcode(status)), output.read_text(errors="replace")
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung", output.read_text(errors="replace")


def _outcome(code: int) -> Outcome:
    """Return what an exit code of pytest says: 1 is a failed test, 2 a module that cannot be imported any more."""
    if code == 0:
        return "survived"
    return "caught" if code in (1, 2) or code < 0 else "broken"


def _child(file: str, text: str, tests: Sequence[str], output: Path) -> None:
    code = 70
    try:
        os.setsid()
        to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        null = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((null, 0), (to, 1), (to, 2)):
            os.dup2(old, new)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        name = file.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, EditedModule(name, Path(file).resolve(), text))
        for test in tests:  # one after the other: most edits are caught by the first
            code = int(pytest.main([*OPTIONS, test]))
            if code:
                break
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    """Print the file of the package that is tested, then answer trials until the input ends."""
    found = importlib.util.find_spec("streams")
    print(found.origin if found is not None else None, flush=True)
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        trial = json.loads(line)
        outcome, text = run(trial["file"], trial["text"], trial["tests"], trial["seconds"])
        print(json.dumps({"outcome": outcome, "text": text[-4000:]}), flush=True)


if __name__ == "__main__":
    main()
