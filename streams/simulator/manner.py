"""The behaviour of a development relay at all times, where real relays differ from each other."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

PATH: Final = "/xrpc/com.atproto.sync.subscribeRepos"


class Order(enum.Enum):
    """The way in which a cursor is looked up in a stream that is not in the order of its seqs."""

    #: Each frame of the replay is judged by its own seq.
    SEQ = "seq"
    #: From behind the first frame with that seq or a higher one, as in a log file.
    PLACE = "place"


class Beyond(enum.Enum):
    """The answer to a cursor beyond the head."""

    ERROR = "error"
    HTTP = "http"
    LIVE = "live"
    SILENT = "silent"


class Speech(enum.Enum):
    """The kind of stream that is served."""

    REPOS = "repos"
    JETSTREAM = "jetstream"
    LABELS = "labels"


PATHS: Final = {
    Speech.REPOS: PATH,
    Speech.JETSTREAM: "/subscribe",
    Speech.LABELS: "/xrpc/com.atproto.label.subscribeLabels",
}


@dataclass(frozen=True)
class Manner:
    """The behaviour of one relay. ``keep_old``: what was before a reset stays in the store.

    ``cut_at_reset``: a reset ends every connection. ``sent_times``: `time` is when the frame is sent.
    ``negative_cursors``: taken as 0, not refused.
    """

    order: Order = Order.SEQ
    beyond: Beyond = Beyond.ERROR
    speech: Speech = Speech.REPOS
    keep_old: bool = False
    cut_at_reset: bool = False
    sent_times: bool = False
    negative_cursors: bool = False
