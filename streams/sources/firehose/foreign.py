"""The check that a stream is subscribeRepos at all, by its first messages. Pure.

A Jetstream, a labeler or a web page behind RELAY_URL would fill the topic with dead letters without end. A firehose may
send an odd message, too; but the first messages of a firehose are not all odd.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import Final

from streams.errors import RelayError
from streams.text import printable

#: So many odd messages, and not one frame of the firehose, are enough.
ENOUGH: Final = 8
#: What only a firehose sends. An #info, or an error, may come of any event stream, and says nothing.
FIREHOSE_TYPES: Final = frozenset({
    "#commit", "#identity", "#account", "#sync", "#handle", "#migrate", "#tombstone",
})  # fmt: skip
_LABELS: Final = "#labels"
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"


class ForeignStreamError(RelayError):
    """RELAY_URL does not name a firehose."""


class Seems(enum.Enum):
    """The kinds of messages of other streams, with the words for people."""

    JETSTREAM = "text messages: a Jetstream?"
    JSON = "text messages of JSON"
    HTML = "text messages of HTML: a web server?"
    TEXT = "text messages"
    LABELER = "#labels frames: a labeler's subscribeLabels?"
    OTHER_TYPES = "frames of other types"
    COMPRESSED = "compressed messages: a Jetstream with compress=true?"
    BINARY = "binary messages that are not frames"


class Doubt:
    """The count of odd messages of a stream, until a frame of the firehose proves that it is one.

    ``proven``: one came on this connection. A new connection begins to doubt again.
    """

    def __init__(self, relay: str) -> None:
        self.proven = False
        self._relay = relay
        self._odd: Counter[str] = Counter()
        self._ever = False

    def prove(self) -> None:
        """Note that a frame of the firehose came."""
        self.proven = self._ever = True
        self._odd.clear()

    def begin_again(self) -> None:
        """Begin to doubt a new connection. Odd messages of earlier ones count only if no frame has ever come."""
        self.proven = False
        if self._ever:
            self._odd.clear()

    def text(self, data: bytes) -> None:
        """Count a text message. Raises ForeignStreamError if it is one too many, as the next two do."""
        self._note(_of_text(data).value)

    def type(self, kind: str) -> None:
        """Count a frame of a type that the firehose does not have."""
        self._note(Seems.LABELER.value if kind == _LABELS else f"{Seems.OTHER_TYPES.value} ({printable(kind, 40)})")

    def binary(self, data: bytes) -> None:
        """Count a binary message that is not a frame."""
        self._note((Seems.COMPRESSED if data.startswith((_ZSTD, _GZIP)) else Seems.BINARY).value)

    def _note(self, what: str) -> None:
        self._odd[what] += 1
        if self._odd.total() >= ENOUGH:
            raise self._error()

    def check(self, least: int = 1) -> None:
        """Judge a stream that ended or is silent. Raises ForeignStreamError after ``least`` odd messages only."""
        if not self._ever and self._odd.total() >= least:
            raise self._error()

    def _error(self) -> ForeignStreamError:
        (what, _), *_ = self._odd.most_common(1)
        return ForeignStreamError(
            f"{self._relay} does not serve com.atproto.sync.subscribeRepos (it sends {what})",
            "set RELAY_URL to a relay's or a PDS's firehose (wss://HOST/xrpc/com.atproto.sync.subscribeRepos).",
        )


def _of_text(data: bytes) -> Seems:
    begin = data[:4096].lstrip()
    if begin.startswith((b"{", b"[")):
        return Seems.JETSTREAM if b'"time_us"' in begin else Seems.JSON
    return Seems.HTML if begin.startswith(b"<") else Seems.TEXT
