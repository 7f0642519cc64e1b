"""Two hundred environments as platforms and people leave them: each works, or ends in one sentence with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.environment.names import OUR_PREFIXES
from streams.errors import SettingsError
from streams.settings import Settings, load_settings, places, setting_names
from streams.ui.terminal.config import shown_settings
from tests.unit.environment.test_brokers import REFUSED, UNDERSTOOD
from tests.unit.environment.test_names import COMPANIONS, LINKS, SERVICES

SECRET = "hunter2"
#: Each for every setting of a number, of a switch, of a choice, of a name: what people write for it.
VALUES = ("", " ", "7", '"7"', "'7'", " 7 ", "7 # seven", "0x7", "7.5", "-1", "1e9", "nan", "inf", "9" * 30, "true",
          "off", "None", "null", "${X}", "a,b", "a b", "é", "-", "0")  # fmt: skip
NUMBERS = ("BACKFILL_DAYS", "WORKER_ID", "BACKFILL_BATCH_SIZE", "KAFKA_REPLICATION", "INGEST_IDLE_SECONDS",
           "BACKFILL_USE_IDLE", "KAFKA_TOPIC")  # fmt: skip


def environments() -> Iterator[dict[str, str]]:
    """The table; a password in each."""
    for name in NUMBERS:
        yield from ({name: value} for value in VALUES)
    yield from ({"KAFKA_BOOTSTRAP_SERVERS": text} for text in (*UNDERSTOOD, *REFUSED))
    for service in SERVICES:
        yield {f"{service}_{link}": "tcp://10.0.0.7:9092" for link in LINKS}
    yield from (dict.fromkeys(names.split(), SECRET) for names in COMPANIONS.values())
    yield dict.fromkeys(setting_names(), "")
    yield {name.lower(): "7" for name in setting_names()}
    yield {"BACKFIL_DAYS": SECRET, "KAFKA_SASL_PASSWORT": SECRET}
    yield {"KAFKA_SASL_PASSWORD": SECRET, "KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
    yield {"LOCAL_DIR": os.fsdecode(b"lat\xe9")}
    yield {"KAFKA_TOPIC": os.fsdecode(b"\xff\xfe"), "HOME": os.fsdecode(b"\xff")}
    yield {"LOG_LEVEL": "TRACE", "LOG_FORMAT": "json"}


CASES = list(environments())


def test_there_are_two_hundred() -> None:
    assert len(CASES) >= 200


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_works_or_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    works = 0
    for case in CASES:
        with monkeypatch.context() as patch:
            for name, value in {"DATABASE_URL": f"postgresql://u:{SECRET}@h/d", **case}.items():
                patch.setenv(name, value)
            works += check()
    assert len(CASES) * 0.3 < works < len(CASES) * 0.9


def check() -> bool:
    """Whether the settings are good; nothing else than a sentence may come of them, and no secret in it."""
    try:
        settings = load_settings()
    except SettingsError as error:
        assert "\n" not in str(error)
        assert SECRET not in str(error)
        str(error).encode()
        return False
    rows = shown_settings(settings, *places(), None)
    assert SECRET not in "".join(f"{row.name}{row.value}" for row in rows)
    assert Settings(_env_file=None, **{k.lower(): v for k, v in settings.as_environment().items() if v}) == settings  # type: ignore[arg-type, call-arg]
    return True


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        (dict.fromkeys(COMPANIONS["apache/kafka"].split(), SECRET) | {"KAFKA_PORT": "tcp://10.0.0.7:9092"}, 0),
        ({"KAFKA_BOOTSTRAP_SERVERS": f"kafka://user:{SECRET}@h:9092"}, 2),
        ({"LOCAL_DIR": os.fsdecode(b"lat\xe9")}, 2),
        ({"KAFKA_SASL_PASSWORT": SECRET}, 2),
    ],
)
def test_through_a_command(environment: dict[str, str], code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streams.ingest", "--days", "0"]
    own = {name: value for name, value in os.environ.items() if not name.startswith(OUR_PREFIXES)}
    done = subprocess.run(command, env=own | environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == (1 if code else 0)
