"""The workflows of GitHub Actions and the hooks of pre-commit: what they call exists, and they are allowed little."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (PROJECT / "Makefile").read_text()
#: A call of make in a step, up to the end of the command.
MAKE = re.compile(r"(?:^|[;&|]\s*)make +([^\n;&|]+)", re.M)

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def load(path: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text())
    return loaded


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = load(path)["jobs"]
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(path).values():
        yield from job["steps"]


def has_target(name: str) -> bool:
    file = name.replace(".venv", "$(VENV)")
    return re.search(rf"^{re.escape(file)}:", MAKEFILE, re.M) is not None


def test_the_workflows_are_found() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "long.yml"]


@each_workflow
def test_every_make_target_and_variable_exists(path: Path) -> None:
    calls = [call for step in steps(path) for call in MAKE.findall(step.get("run", ""))]
    assert calls
    for call in calls:
        target, _, variable = call.partition(" ")
        assert has_target(target), f"make has no target {target}"
        name = variable.partition("=")[0].strip()
        assert not name or re.search(rf"^{name} \?=", MAKEFILE, re.M), f"make has no variable {name}"


@each_workflow
def test_every_path_that_a_step_names_exists(path: Path) -> None:
    named = [word for step in steps(path) for word in step.get("run", "").split() if word.startswith("tests/")]
    assert [name for name in named if not (PROJECT / name).exists()] == []


@each_workflow
def test_every_job_has_an_end_and_may_only_read(path: Path) -> None:
    assert load(path)["permissions"] == {"contents": "read"}
    for name, job in jobs(path).items():
        assert 0 < job["timeout-minutes"] <= 120, name
        assert job["permissions"] == {"contents": "read"}, name


@each_workflow
def test_no_secret_and_no_credential_is_used(path: Path) -> None:
    assert "secrets." not in path.read_text()
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # What somebody typed goes through the environment: in the text of a command it would be executed.
        assert "${{" not in step.get("run", "")


def test_the_unit_tests_run_on_each_python_of_the_classifiers() -> None:
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (PROJECT / "pyproject.toml").read_text())
    unit = jobs(PROJECT / ".github/workflows/ci.yml")["unit"]
    tried = re.findall(r"matrix\.python == '(3\.\d+)'", unit["continue-on-error"])
    assert unit["strategy"]["matrix"]["python"] == [
        *classifiers,
        *(version for version in tried if version not in classifiers),
    ]
    assert not set(tried) & set(classifiers), "what a classifier promises may not fail"


def test_pre_commit_has_the_ruff_of_the_requirements() -> None:
    (hooks,) = load(PROJECT / ".pre-commit-config.yaml")["repos"]
    pinned = re.search(r"^ruff==(\S+)", (PROJECT / "requirements" / "dev.txt").read_text(), re.M)
    assert pinned is not None
    assert hooks["rev"] == f"v{pinned[1]}"
    assert [hook["id"] for hook in hooks["hooks"]] == ["ruff-check", "ruff-format"]
