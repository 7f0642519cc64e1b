"""The declaration of a topic that arrives in slices, and the Kafka message that carries one."""
# ruff: noqa: ANN401 (the overridden method's own signature)

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import faust
from faust.types.tuples import ConsumerMessage


class SliceMessage(ConsumerMessage):
    """The Kafka message that carries a slice; its offset is the slice's base."""

    __slots__ = ()


class SliceSchema(faust.Schema[Any, Any]):
    """The mark of a sliced topic; it hands the slice through without a codec."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """Return Faust's decoder of this topic."""
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, message.headers, message)

        return decode
