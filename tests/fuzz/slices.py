"""What must hold for any messages of the topic: each has one fate, and the slicing changes nothing."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any, Final

from streams.postgres.batch import Batch
from tests.fuzz import oracle, rules
from tests.fuzz.through import KEEP, NOW, Message, Worker, fates, must, rows_of

_UNJUDGED: Final = object()


def check(worker: Worker, messages: list[Message], r: Random, *, filtered: bool) -> dict[str, int]:
    """Check a slice; how many messages had which fate. Raises WrongError."""
    total: dict[str, int] = {}
    singles = []
    for message in messages:
        batch = worker.build([message], filtered=filtered)
        fate = _single(batch, message, filtered)
        total[fate] = total.get(fate, 0) + 1
        if batch is not None:
            singles.append((message, batch))
    whole = worker.build([message for message, _ in singles], filtered=filtered)
    topics = {batch.topic_id for _, batch in singles if batch.topic_id is not None}
    must(
        (whole is None) == (len(topics) > 1),
        f"messages of {len(topics)} topics in a slice: MismatchError is {whole is None}",
    )
    if whole is not None:
        _same_in_one(whole, singles)
        _same_in_parts(worker, whole, [message for message, _ in singles], r, filtered=filtered)
    return total


def _single(batch: Batch | None, message: Message, filtered: bool) -> str:
    """The fate of a message by itself, held against what JSON says of it."""
    said = _read(message.value)
    if batch is None:
        must(_newer(message, said), "a MismatchError without a newer version")
        return "newer format"
    found = fates(batch)
    count = sum(found.values())
    if batch.received == 1 and count == 0:
        must(_says_nothing(said), "a message that left no trace")
        return "says nothing"
    if count == 0:
        must(message.key is None and b'"repo_end"' in (message.value or b""), "a control message that left no trace")
        return "ignored"
    must(count == 1, f"more than one fate: {found}")
    fate = next(name for name, number in found.items() if number)
    must(batch.received == (fate != "control"), f"received {batch.received}, but {fate}")
    _judge(batch, message, said, fate, filtered)
    return fate


def _says_nothing(said: Any) -> bool:
    return said is _UNJUDGED or (said.get("kind") == "identity" and said["identity"].get("handle") is None)


def _newer(message: Message, said: Any) -> bool:
    if message.key is not None:
        return False
    return said is _UNJUDGED or (type(said.get("version")) in (int, float) and said["version"] > 1)


def _read(value: bytes | None) -> Any:
    """What the standard library reads; ``_UNJUDGED`` where JSON's readers may differ."""
    try:
        text = (value or b"").decode()
        if _DOUBTFUL(text):
            return _UNJUDGED
        said = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return _UNJUDGED
    return said if type(said) is dict else _UNJUDGED


#: Surrogates, floats that may be whole numbers, numbers of many digits, and deep nesting.
_DOUBTFUL: Final = re.compile(r"\\u[dD][89a-fA-F]|\.0\b|\d[eE]|\d{19}|\[{40}|(?:\{\"a\":){40}").search


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _judge(batch: Batch, message: Message, said: Any, fate: str, filtered: bool) -> None:
    if fate == "row":
        (row,) = (row for stage in batch.stages for row in stage.rows.values())
        must(
            rules.did(row[0]) is not False and rules.nsid(row[1]) is not False and rules.rkey(row[2]),
            f"a row with a bad key: {row[:3]}",
        )
        us = rules.tid_us(row[3])
        must(us is not None and us <= max(NOW, row[7]) + rules.HOUR_US, f"a row with the rev {row[3]!r}")
        must(row[5] is None or row[4] is not None, "a record without a CID")
        must(row[5] is None or b"\\u0000" not in row[5].replace(b"\\\\", b""), "a NUL in a row's record")
    if said is _UNJUDGED or message.key is None:
        return
    wanted = rules.row(said, message.key, NOW)
    if said.get("kind") == "commit" and wanted is not None and fate != "filtered":
        must(fate == ("row" if wanted else "dead"), f"the message must be a row: {wanted}; it is {fate}")
    if fate == "filtered":  # before anybody looks at its record
        assert KEEP is not None
        must(filtered and not KEEP(said["commit"]["collection"]), "a wanted collection is filtered")
    if fate == "row":
        _same_row(row, said, message)


def _same_row(row: Any, said: dict[str, Any], message: Message) -> None:
    commit = said["commit"]
    record = None if commit["operation"] == "delete" else _without_nul(commit["record"])
    cid = None if record is None else commit["cid"]
    wanted = (
        said["did"],
        commit["collection"],
        commit["rkey"],
        commit["rev"],
        cid,
        said.get("seq"),
        said["time_us"],
        message.offset,
    )
    must((*row[:5], *row[6:9]) == wanted, f"a row is not what its message says: {row[:5]}")
    must(
        oracle.canonical(None if row[5] is None else json.loads(row[5])) == oracle.canonical(record),
        "a row has another record",
    )


def _without_nul(value: Any) -> Any:
    if type(value) is str:
        return value.replace("\0", "\ufffd")
    if type(value) is dict:
        return {_without_nul(key): _without_nul(inner) for key, inner in value.items()}
    return [_without_nul(inner) for inner in value] if type(value) is list else value


def _same_in_one(whole: Batch, singles: list[tuple[Message, Batch]]) -> None:
    """A slice counts what its messages count, and of each key the highest rev stands, on a tie the later one."""
    must(
        whole.received == sum(batch.received for _, batch in singles),
        "the slice received another number than its messages",
    )
    must(
        len(whole.dead) == sum(len(batch.dead) for _, batch in singles), "the slice has another number of dead letters"
    )
    must(whole.filtered == sum(batch.filtered for _, batch in singles), "the slice filtered another number")
    must(len(whole.gaps) == sum(len(batch.gaps) for _, batch in singles), "the slice has another number of gaps")
    if len(whole.stages) > 1:
        return
    best: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for _, batch in singles:
        for key, row in rows_of(batch).items():
            if key not in best or row[3] > best[key][3] or (row[3] == best[key][3] and row[4] != best[key][4]):
                best[key] = row
    must(rows_of(whole) == best, "the slice has other rows than its messages one by one")


def _same_in_parts(worker: Worker, whole: Batch, messages: list[Message], r: Random, *, filtered: bool) -> None:
    if len(messages) < 2:
        return
    at = r.randrange(1, len(messages))
    parts = [worker.build(part, filtered=filtered) for part in (messages[:at], messages[at:])]
    for name in ("received", "filtered"):
        must(getattr(whole, name) == sum(getattr(part, name) for part in parts), f"{name} differs with the slicing")
    must(
        whole.dead == [letter for part in parts if part for letter in part.dead],
        "the dead letters differ with the slicing",
    )
