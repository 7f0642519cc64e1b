"""Root file systems as tar files: programs of this machine, with the shared libraries that they need.

An image made of them needs no registry and no network. Nothing is installed, so no package's scripts run.
"""

from __future__ import annotations

import io
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final, Self

#: What a slim Debian image has, as far as our images' commands and entry points use it.
SLIM: Final = (
    "base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "debianutils", "diffutils",
    "findutils", "grep", "gzip", "hostname", "less", "libc-bin", "libc6", "libgcc-s1", "libstdc++6",
    "login", "mawk", "mount", "netbase", "passwd", "procps", "sed", "tar", "tzdata", "util-linux", "zlib1g",
)  # fmt: skip
#: Folders of a package that no program needs.
_SPARE: Final = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/info")
_MERGED: Final = ("bin", "sbin", "lib", "lib64")
_ELF: Final = b"\x7fELF"
_EPOCH: Final = 1_700_000_000


class Rootfs:
    """One tar file that is written from the beginning to the end. A path is taken once: the first wins."""

    def __init__(self, file: Path) -> None:
        self._tar = tarfile.open(file, "w")  # noqa: SIM115 (closed by __exit__)
        self._taken: set[str] = set()
        self._programs: list[Path] = []
        self._trees: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def folder(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        """An empty folder."""
        self._put(_info(path, tarfile.DIRTYPE, mode, owner))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        info = _info(path, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self._put(info)

    def text(self, path: str, content: str, mode: int = 0o644) -> None:
        """A file with that content."""
        self._bytes(path, content.encode(), mode)

    def file(self, path: str, source: Path) -> None:
        """A file or a link of this machine, at ``path``. Device files and the like are passed over."""
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            self.link(path, str(source.readlink()))
        elif stat.S_ISDIR(status.st_mode):
            self.folder(path, stat.S_IMODE(status.st_mode))
        elif stat.S_ISREG(status.st_mode):
            content = source.read_bytes()
            if content.startswith(_ELF):
                self._programs.append(source)
            self._bytes(path, content, stat.S_IMODE(status.st_mode))

    def tree(self, path: str, source: Path, without: Iterable[str] = ()) -> None:
        """A folder of this machine with all that is in it, but for folders with the names ``without``."""
        spare = {"__pycache__", *without}
        self.owns(source)
        for found in sorted(source.rglob("*")):
            below = found.relative_to(source)
            if spare.isdisjoint(below.parts):
                self.file(f"{path}/{below}", found)

    def owns(self, folder: Path) -> None:
        """Libraries below a folder of this machine are not taken one by one: they are here at another place."""
        self._trees.append(folder)

    def packages(self, names: Iterable[str]) -> None:
        """The files of Debian packages that are installed on this machine; one that is not is passed over."""
        for name in _MERGED:
            self.folder(f"/usr/{name}")
            self.link(f"/{name}", f"usr/{name}")
        listed = subprocess.run(["dpkg", "-L", *names], capture_output=True, text=True, check=False).stdout
        for line in listed.splitlines():
            if line.startswith("/") and line != "/." and not line.startswith(_SPARE):
                source = Path(line)
                if source.is_symlink() or source.exists():
                    self.file(line, source)

    def libraries(self) -> None:
        """The shared libraries that all programs taken so far need, at the paths where this machine has them."""
        found = {Path(path) for path in _needed(self._programs)}
        # A program finds the libraries of its own tree by its place in it.
        found = {path for path in found if not any(path.resolve().is_relative_to(tree) for tree in self._trees)}
        for library in sorted(found):
            if _plain(str(library)) not in self._taken:
                self._bytes(str(library), library.read_bytes(), 0o755)

    def _bytes(self, path: str, content: bytes, mode: int) -> None:
        info = _info(path, tarfile.REGTYPE, mode)
        info.size = len(content)
        self._put(info, content)

    def _put(self, info: tarfile.TarInfo, content: bytes | None = None) -> None:
        if info.name not in self._taken:
            self._taken.add(info.name)
            self._tar.addfile(info, None if content is None else io.BytesIO(content))


def _info(path: str, kind: bytes, mode: int, owner: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(_plain(path))
    info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, owner, owner, _EPOCH
    return info


def _plain(path: str) -> str:
    """The path in the tar: no slash in front, and below /usr what Debian has merged there."""
    parts = PurePosixPath(path).parts[1:]
    return "/".join(("usr", *parts) if len(parts) > 1 and parts[0] in _MERGED else parts)


def _needed(programs: list[Path]) -> set[str]:
    """The libraries of this machine that the programs are linked with, and those that these are linked with."""
    if not programs:
        return set()
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", said, re.MULTILINE))
