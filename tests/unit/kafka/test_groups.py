"""The members of a group on a broker that has no coordinator for it yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from streams.kafka import groups
from streams.settings import Settings

SETTINGS = Settings(_env_file=None)


class Admin:
    """A client of a broker that answers with these, in turn: errors are raised, codes are those of the group."""

    def __init__(self, *answers: Exception | int) -> None:
        self.answers = list(answers)

    async def describe_consumer_groups(self, names: list[str]) -> list[Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [SimpleNamespace(groups=[(answer, names[0], "Stable", "", "", [("id", "client", "/10.0.0.7")])])]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_time(_: float) -> None: ...

    monkeypatch.setattr(asyncio, "sleep", no_time)


async def test_a_new_broker_is_asked_until_it_has_a_coordinator() -> None:
    admin = Admin(GroupCoordinatorNotAvailableError(), 16, NotCoordinatorForGroupError(), 0)
    assert await groups.members(admin, SETTINGS) == ["10.0.0.7"]  # type: ignore[arg-type]
    assert admin.answers == []


async def test_one_that_has_none_for_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "COORDINATOR_SECONDS", -1.0)
    admin = Admin(15, 0)
    with pytest.raises(GroupCoordinatorNotAvailableError):
        await groups.members(admin, SETTINGS)  # type: ignore[arg-type]
    assert len(admin.answers) == 1
