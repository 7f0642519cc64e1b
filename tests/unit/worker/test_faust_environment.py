"""Faust reads nothing from the environment but what we hand it: each of its settings, by its own registry."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faust.types.settings import Settings as FaustSettings

from streams.agents import make_app
from streams.settings import Settings

#: Values that would break some setting, or be taken: an address of another service, a release, a word, a number.
VALUES = ("amqp://guest@127.0.0.1:1//", "1.4.2", "rocksdb://", "7", "true", "")
#: The topic of an app's replies is another each time.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NAMES = sorted(param.env_name for param in FaustSettings.SETTINGS.values() if param.env_name is not None)


def configured() -> dict[str, str]:
    """Every setting of Faust, as our app has it."""
    conf = make_app(Settings(_env_file=None, kafka_bootstrap_servers="127.0.0.1:9")).conf  # type: ignore[call-arg]
    return {name: UUID.sub("", str(getattr(conf, name))) for name in FaustSettings.setting_names()}


def test_the_registry_is_known() -> None:
    """Of those that were found in the wild; a Faust that names them otherwise would make this file mean nothing."""
    assert len(NAMES) > 70
    assert {"BROKER_URL", "APP_VERSION", "APP_STORE", "APP_DATADIR", "CACHE_URL", "PRODUCER_ACKS"} <= set(NAMES)


@pytest.mark.parametrize("value", VALUES)
def test_no_setting_of_faust_comes_from_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = configured()
    for name in NAMES:
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(f"FAUST_{name}", value)
    assert configured() == clean


@pytest.mark.parametrize("name", ["BROKER_URL", "APP_VERSION", "APP_STORE", "APP_DATADIR", "NODE_HOSTNAME"])
def test_nor_one_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = configured()
    monkeypatch.setenv(name, "https://1.4.2/")
    assert configured() == clean


def test_the_command_forgets_what_faust_reads_while_it_is_imported(tmp_path: Path) -> None:
    theirs = {
        "FAUST_LOOP": "uvloop", "F_LOOP": "gevent", "FAUST_CONSOLE_PORT": "many", "FAUST_BLOCKING_TIMEOUT": "long",
        "F_WEB_PORT": "http", "F_DATADIR": "/nowhere", "FAUST_WORKDIR": "/nowhere", "FAUST_DEBUG": "1",
        "DJANGO_SETTINGS_MODULE": "shop.settings", "PYTHONIOENCODING": "ascii",
    }  # fmt: skip
    command = [sys.executable, "-m", "streams.commands.faust_command", "-A", "streams.agents", "agents"]
    done = subprocess.run(
        command, env={**os.environ, **theirs}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "sink_postgres" in done.stdout
    assert done.stderr == ""


def test_the_command_is_the_one_that_is_installed() -> None:
    """Both packages have a script of this name: the one that is installed last, ours, must be there."""
    script = Path(sys.executable).with_name("faust").read_text()
    assert "from streams.commands.faust_command import main" in script
