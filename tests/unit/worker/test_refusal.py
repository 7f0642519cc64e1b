"""A container's start that is refused for a setting: 2, then 0 with the same sentence, then a try again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from streams.errors import BrokerError, SettingsError
from streams.worker import container, refusal


class Execed(Exception):  # noqa: N818 (nothing went wrong)
    """The worker was become."""


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The container's own process, with a folder in its layer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(refusal, "in_container", lambda: True)
    monkeypatch.setattr(refusal, "MARKS", ())
    monkeypatch.setattr(os, "getppid", lambda: 1)

    def execv(*_: object) -> None:
        raise Execed

    monkeypatch.setattr(os, "execv", execv)
    return tmp_path


def test_a_setting_is_refused_once_and_not_for_ever(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKFILL_DAYS", "7")
    monkeypatch.setenv("BACKFILL_DAYZ", "7")
    assert container.main() == SettingsError.exit_code
    sentence = capsys.readouterr().err.strip()
    assert "did you mean BACKFILL_DAYS?" in sentence
    assert container.main() == 0, "on-failure starts it again: that is the end"
    assert capsys.readouterr().out.startswith(f"{sentence}\nThe start before this one was refused for that")
    monkeypatch.delenv("BACKFILL_DAYZ")
    with pytest.raises(Execed):
        container.main()
    assert list(inside.iterdir()) == []


@pytest.mark.usefixtures("inside")
def test_what_the_worker_refuses_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_DAYS", "7")
    refusal.keep(SettingsError("The container has 128 MB. Give it more."))
    assert container.main() == 0
    with pytest.raises(Execed):
        container.main()


@pytest.mark.usefixtures("inside")
def test_what_passes_by_itself_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_DAYS", "7")
    refusal.keep(BrokerError("Kafka is away."))
    with pytest.raises(Execed):
        container.main()


@pytest.mark.parametrize("whose", ["in no container", "run in it by hand"])
def test_only_the_containers_own_process_notes_it(inside: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    if whose == "in no container":
        monkeypatch.setattr(refusal, "in_container", lambda: False)
    else:
        monkeypatch.setattr(os, "getppid", lambda: 0)
    refusal.keep(SettingsError("No."))
    assert (list(inside.iterdir()), refusal.pop()) == ([], None)


@pytest.mark.usefixtures("inside")
def test_a_container_that_nothing_can_be_written_in_refuses_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    refusal.keep(SettingsError("No."))
    assert refusal.pop() is None


def test_a_container_without_layers_is_known_by_its_engines_mark(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "in_container", lambda: False)
    assert not refusal.is_containers_own()
    monkeypatch.setattr(refusal, "MARKS", (inside / ".dockerenv",))
    assert not refusal.is_containers_own()
    (inside / ".dockerenv").touch()
    assert refusal.is_containers_own()
