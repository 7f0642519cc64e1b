"""A topic is created also while brokers come and go; what Kafka does not allow is one sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import (
    InvalidReplicationFactorError,
    LeaderNotAvailableError,
    NotControllerError,
    PolicyViolationError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from streams.errors import BrokerError
from streams.kafka import topic

NEW = NewTopic("t", 4, 1)


class Admin:
    """Answers with what is planned, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [answer.errno if answer else 0 for answer in answers]

    async def create_topics(self, _: list[NewTopic]) -> Any:
        return SimpleNamespace(topic_errors=[("t", self.answers.pop(0), "a reason")])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "RETRY_SECONDS", 0.001)


@pytest.mark.parametrize(
    "answers",
    [
        (None,),
        (TopicAlreadyExistsError,),
        (InvalidReplicationFactorError, InvalidReplicationFactorError, None),
        (NotControllerError, None),
        (RequestTimedOutError, TopicAlreadyExistsError),
        (LeaderNotAvailableError, NotControllerError, InvalidReplicationFactorError, None),
    ],
)
async def test_what_passes_is_waited_for(answers: tuple[Any, ...]) -> None:
    admin = Admin(*answers)
    await topic.create(cast(Any, admin), NEW)
    assert admin.answers == []


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError, PolicyViolationError])
async def test_what_kafka_does_not_allow_is_said_at_once(error: Any) -> None:
    with pytest.raises(BrokerError, match=rf"^The topic t cannot be created: {error.__name__} a reason\.$"):
        await topic.create(cast(Any, Admin(error)), NEW)


async def test_too_few_brokers_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "START_TIMEOUT", 0.01)
    with pytest.raises(BrokerError, match="InvalidReplicationFactorError a reason"):
        await topic.create(cast(Any, Admin(*[InvalidReplicationFactorError] * 100_000)), NEW)
