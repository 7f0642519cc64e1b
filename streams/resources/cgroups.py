"""The limits and the use of the container that we run in: our control groups' cores and memory (v2, v1, hybrid).

A limit of any group above ours holds for us too, so the tightest counts. All is read below a folder that is given, so
that a test can write such a folder. Nothing here fails: a file that cannot be read is not a limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
SELF: Final = Path("/proc/self/cgroup")
#: A memory limit of this size or more means "no limit" in v1.
_NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Quota:
    """A number of cores, and the folder of the group that has them; ``used`` is of that group, ours and others'."""

    cores: float
    folder: Path

    def used(self) -> float | None:
        """Return the CPU seconds that the group has used since it was made."""
        for line in _read(self.folder / "cpu.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                return int(value) / 1e6
        used = _number(self.folder / "cpuacct.usage")
        if used is None:  # v1 may have its two controllers at two places
            used = _number(self._beside("cpuacct") / "cpuacct.usage")
        return None if used is None else used / 1e9

    def _beside(self, controller: str) -> Path:
        mounts = [folder for folder in (self.folder, *self.folder.parents) if folder.name == "cpu"]
        return mounts[0].with_name(controller) / self.folder.relative_to(mounts[0]) if mounts else self.folder


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Our groups' folders, ours first and then the ones above it: of v2, and of v1's controllers cpu and memory."""

    unified: tuple[Path, ...]
    cpu: tuple[Path, ...]
    memory: tuple[Path, ...]

    def quota(self) -> Quota | None:
        """Return the tightest limit of CPU time; None where there is none."""
        quotas = [Quota(cores, folder) for folder in self.unified if (cores := _v2_cores(folder)) is not None]
        quotas += [Quota(cores, folder) for folder in self.cpu if (cores := _v1_cores(folder)) is not None]
        return min(quotas, key=lambda quota: quota.cores, default=None)

    def memory_limit(self) -> int | None:
        """Return the tightest limit of memory in bytes; None where there is none."""
        limits = [_number(folder / "memory.max") for folder in self.unified]
        limits += [_number(folder / "memory.limit_in_bytes") for folder in self.memory]
        return min((limit for limit in limits if limit is not None and limit < _NO_LIMIT), default=None)

    def pressure_file(self, kind: str) -> Path | None:
        """Return the group's own pressure of ``cpu``, ``memory`` or ``io``: v2 only, and not of the root group."""
        for folder in self.unified[:1]:
            if (folder / f"{kind}.pressure").is_file():
                return folder / f"{kind}.pressure"
        return None


def find_cgroups(listing: Path = SELF, root: Path = ROOT) -> Cgroups:
    """Return our groups, from ``/proc/self/cgroup`` and where the hierarchies are mounted."""
    unified: tuple[Path, ...] = ()
    cpu: tuple[Path, ...] = ()
    memory: tuple[Path, ...] = ()
    for line in _read(listing).splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, names, path = parts
        controllers = names.split(",")
        if not names:
            mount = root if (root / "cgroup.controllers").is_file() else root / "unified"
            unified = _upwards(mount, path)
        if "cpu" in controllers:
            cpu = _upwards(_mount(root, names, "cpu"), path)
        if "memory" in controllers:
            memory = _upwards(_mount(root, names, "memory"), path)
    return Cgroups(unified, cpu, memory)


def _mount(root: Path, names: str, controller: str) -> Path:
    return root / controller if (root / controller).is_dir() else root / names


def _upwards(mount: Path, path: str) -> tuple[Path, ...]:
    """Return the folders of the group and those above it. A container's path may be the host's: the mount is ours."""
    names = [name for name in path.split("/") if name not in ("", "..")]
    folders = [mount.joinpath(*names[:n]) for n in range(len(names), -1, -1)]
    return tuple(folder for folder in folders if folder.is_dir())


def _v2_cores(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _v1_cores(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and period and quota > 0 else None


def _number(file: Path) -> int | None:
    text = _read(file).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
