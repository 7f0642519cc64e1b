"""The package as it is published: an sdist, a wheel made from it, and the commands of an installed wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tests.mutants.catalogue import PROJECT
from tests.mutants.trial import copy_tree

#: The kinds of files beside Python's that the program reads, each with one that must be among them.
DATA = {
    "the lexicons": "streams/lexicons/app.bsky.feed.post.json",
    "the migrations": "streams/postgres/migrations/0001_tables.sql",
    "the cursor's table": "streams/postgres/cursor_table.sql",
    "the page": "streams/ui/web/page.html",
    "its script": "streams/ui/web/page.js",
    "its style": "streams/ui/web/page.css",
    "its icon": "streams/ui/web/icon.svg",
    "the list of jars": "streams/local/kafka_jars.txt",
    "the mark of a typed package": "streams/py.typed",
}


@dataclass(frozen=True)
class Built:
    """An sdist and a wheel, and the names of the files in them, without the sdist's folder."""

    wheel: Path
    in_wheel: frozenset[str]
    in_sdist: frozenset[str]


def finish(*arguments: str | Path, cwd: Path) -> str:
    """Run a command to its end, outside the project and without what leads Python into it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("package")
    sources, made = folder / "sources", folder / "dist"
    copy_tree(sources)
    # The wheel is made from the sdist: what the sdist lacks is missing in both.
    finish(sys.executable, "-m", "build", "--no-isolation", "--outdir", made, sources, cwd=folder)
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(name) for name in archive.getnames()]
    in_sdist = frozenset(str(name.relative_to(name.parts[0])) for name in names)
    return Built(wheel, frozenset(zipfile.ZipFile(wheel).namelist()), in_sdist)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's commands, in which the wheel is installed and nothing else."""
    target = tmp_path_factory.mktemp("target")
    finish(sys.executable, "-m", "venv", "--without-pip", target, cwd=target)
    python = target / "bin" / "python"
    site = Path(finish(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=target).strip())
    # The dependencies are those of the tests. A folder in a .pth file comes last, and its own .pth files do not count:
    # the editable installation of this project is not seen.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    pip = ("-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
    finish(sys.executable, *pip, "--no-index", "--no-deps", built.wheel, cwd=target)
    return python.parent


def files_of_the_program() -> frozenset[str]:
    """Every file of streams/ that the program needs: a README is for who reads the sources."""
    paths = (path for path in (PROJECT / "streams").rglob("*") if path.is_file() and path.suffix not in {".pyc", ".md"})
    return frozenset(str(path.relative_to(PROJECT)) for path in paths)


def test_sdist_and_wheel_hold_every_file_of_the_program(built: Built) -> None:
    expected = files_of_the_program()
    assert set(DATA.values()) <= expected
    assert sorted(expected - built.in_wheel) == []
    assert sorted(expected - built.in_sdist) == []


def test_the_wheel_holds_nothing_but_the_program(built: Built) -> None:
    assert {name.split("/")[0].split("-")[0] for name in built.in_wheel} == {"streams", "atproto_streams"}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= built.in_sdist


def test_the_commands_of_an_installed_wheel_run(installed: Path, tmp_path: Path) -> None:
    where = finish(installed / "python", "-c", "import streams; print(streams.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "usage:" in finish(installed / "python", "-m", "streams.ingest", "--help", cwd=tmp_path).lower()
    assert "usage:" in finish(installed / "python", "-m", "streams.simulator", "--help", cwd=tmp_path).lower()
    agents = finish(installed / "faust", "-A", "streams.agents", "agents", cwd=tmp_path)
    assert "@sink_postgres" in agents, agents


def test_an_installed_wheel_finds_its_files(installed: Path, tmp_path: Path) -> None:
    looks = (
        "from importlib import resources as r, import_module as i",
        "[i(name) for name in ('streams.postgres.queries', 'streams.ui.web.page', 'streams.local.jars')]",
        "from streams.postgres.queries import cursor_table, migrations, query",
        "assert cursor_table() and migrations() and query('add_migration')",
        "assert r.files('streams').joinpath('lexicons/app.bsky.feed.post.json').is_file()",
    )
    finish(installed / "python", "-c", "; ".join(looks), cwd=tmp_path)
