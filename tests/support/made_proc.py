"""A made-up ``/proc``: processes work, end and are waited for as the test says, and a hypervisor may withhold time."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

_KERNEL_THREAD = 0x00200000
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class MadeProcess:
    """Seconds of CPU: its own, and of children that it has waited for."""

    parent: int
    name: str
    command: list[str]
    started: int
    is_kernel: bool
    used: float = 0.0
    reaped: float = 0.0


@dataclass
class MadeProc:
    """``at`` is the clock, which ``second`` moves; all times are in seconds."""

    folder: Path
    cores: int = 2
    at: float = 0.0
    stolen: float = 0.0
    busy: float = 0.0
    idle: float = 0.0
    processes: dict[int, MadeProcess] = field(default_factory=dict)

    def begin(
        self, pid: int, parent: int = 1, name: str = "x", command: str = "x", *, used: float = 0.0, kernel: bool = False
    ) -> None:
        """A process begins; ``used``: it did long ago."""
        words = [] if kernel else command.split()
        self.processes[pid] = MadeProcess(parent, name, words, len(self.processes) + int(self.at * 100), kernel, used)

    def end(self, pid: int, by: int | None = None) -> None:
        """A process ends, and its parent, or ``by``, waits for it; its children are init's from now on."""
        gone = self.processes.pop(pid)
        reaper = self.processes.get(gone.parent if by is None else by)
        if reaper is not None:
            reaper.reaped += gone.used + gone.reaped
        for process in self.processes.values():
            if process.parent == pid:
                process.parent = 1

    def second(self, steal: float = 0.0, **work: float) -> None:
        """A second passes in which processes (``p7``) use so much CPU, and the hypervisor withholds ``steal``."""
        self.at += 1.0
        for name, seconds in work.items():
            self.processes[int(name[1:])].used += seconds
        worked = sum(work.values())
        self.busy, self.stolen = self.busy + worked, self.stolen + steal
        self.idle += max(0.0, self.cores - worked - steal)
        self.write()

    def write(self) -> None:
        """Write what `/proc` says now."""
        for folder in self.folder.iterdir():
            if folder.is_dir() and int(folder.name) not in self.processes:
                shutil.rmtree(folder)
        cpu = " ".join(str(round(n * TICKS)) for n in (self.busy, 0, 0, self.idle, 0, 0, 0, self.stolen, 0, 0))
        each = "".join(f"cpu{n} 0 0 0 0 0 0 0 0 0 0\n" for n in range(self.cores))
        (self.folder / "stat").write_text(f"cpu  {cpu}\n{each}intr 0\n")
        for pid, process in self.processes.items():
            folder = self.folder / str(pid)
            folder.mkdir(exist_ok=True)
            flags = _KERNEL_THREAD if process.is_kernel else 0
            (folder / "stat").write_text(
                f"{pid} ({process.name}) S {process.parent} 0 0 0 -1 {flags} 0 0 0 0 {round(process.used * TICKS)} 0 "
                f"{round(process.reaped * TICKS)} 0 20 0 1 0 {process.started} 0 0 0\n"
            )
            (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in process.command))
