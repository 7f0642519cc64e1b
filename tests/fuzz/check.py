"""What must hold for every frame, whatever it is: WrongError where it does not; any other error is a fault, too."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any, Final

from streams.messages import MAX_DEAD_PAYLOAD
from tests.fuzz import oracle, rules, slices
from tests.fuzz.frames import Case
from tests.fuzz.oracle import Archive, Expected
from tests.fuzz.through import Ingest, Message, Worker, must, sizes

#: Every tenth case goes through an ingest, and every seventh through a sink, that keeps only some collections.
INGEST_FILTERS_EVERY: Final = 10
SINK_FILTERS_EVERY: Final = 7


def check_case(case: Case, number: int, worker: Worker) -> tuple[str, dict[str, int]]:
    """Put a case through everything: what became of its last frame, and of its messages by fate. Raises WrongError."""
    filtered = number % INGEST_FILTERS_EVERY == 3
    ingest = Ingest(filtered=filtered)
    outcome = "nothing"
    for data, meant in zip(case.frames, case.meant or case.frames, strict=True):
        outcome = check_frame(ingest, data, meant, filtered=filtered)
    messages = [Message(offset, key, value) for offset, (key, value) in enumerate(ingest.tape.messages)]
    fates = (
        slices.check(worker, messages, Random(number), filtered=number % SINK_FILTERS_EVERY == 5) if messages else {}
    )
    return outcome, fates


def check_frame(ingest: Ingest, data: bytes, meant: bytes, *, filtered: bool) -> str:
    """Give one frame to the ingest, and hold what it did against what the bytes say: those of DAG-CBOR's form."""
    counts, tape = ingest.counts, ingest.tape
    before = (counts.events, counts.dead, counts.seen, counts.filtered, sum(counts.skipped_types.values()))
    start, last = len(tape.messages), ingest.intake.continuity.position
    raised = ingest.take(data)
    after = (counts.events, counts.dead, counts.seen, counts.filtered, sum(counts.skipped_types.values()))
    events, dead, seen, kept_out, skipped = (now - then for now, then in zip(after, before, strict=True))
    new = tape.messages[start:]
    values = [value for key, value in new if key is not None]
    letters = [json.loads(value) for key, value in new if key is None]
    sizes(new)
    must(
        (len(values), len(letters)) == (events, dead),
        f"counted {events} events and {dead} dead letters, gave {len(values)}, {len(letters)}",
    )
    for letter in letters:
        _letter(letter)
    wanted = oracle.expect(meant)
    position = ingest.intake.continuity.position
    must(last <= position < oracle.MAX_SEQ, f"the position went from {last} to {position}")
    event = _event_of(wanted)
    came = wanted.seq is None or event in ingest.came
    ingest.came.add(event)
    if raised is not None:
        must((not new and wanted.frame is None) or raised == "reset", f"{raised}: but this frame is none")
        return raised
    if seen or skipped:
        must((events, dead, kept_out) == (0, 0, 0) and seen + skipped == 1, "seen or skipped, and something else")
        must(skipped or came, f"an event that never came, {event}, counted as seen")
        return "seen before" if seen else "skipped by type"
    return _decoded(wanted, values, letters, kept_out, filtered)


def _event_of(wanted: Expected) -> tuple[int | None, str, str]:
    """What a frame must have in common with an earlier one to be its repeat."""
    body = wanted.body or {}
    return wanted.seq, repr(body.get("repo") or body.get("did")), repr(body.get("rev"))


def _letter(letter: dict[str, Any]) -> None:
    reason = letter["reason"]
    must(
        reason and len(reason) < 1000 and reason.isprintable(), f"a reason that is not fit for people: {reason[:200]!r}"
    )
    must(len(base64.b64decode(letter["payload"], validate=True)) <= MAX_DEAD_PAYLOAD, "a payload beyond the limit")


def _decoded(
    wanted: Expected, values: list[bytes], letters: list[dict[str, Any]], kept_out: int, filtered: bool
) -> str:
    """The outcome of a frame that was neither seen before nor skipped, held against the oracle."""
    whole = len(letters) == 1 and not values and not kept_out
    body = wanted.body or {}
    ops = body.get("ops")
    is_commit = wanted.kind == "#commit" and type(ops) is list
    if wanted.frame is False:
        must(whole, f"nothing of this frame can be used, but: {len(values)} events, {len(letters)} dead letters")
        return "dead frame"
    for value in values:
        _event(value, wanted)
    if wanted.frame and is_commit and ops is not None:
        must(
            len(values) + len(letters) + kept_out == len(ops),
            f"{len(ops)} operations, {len(values)} + {len(letters)} + {kept_out} came of them",
        )
        _operations(body, ops, values, kept_out, filtered)
    elif wanted.frame:
        must(len(values) == 1 and not letters, "this frame is one event")
    elif not is_commit:
        must(whole or values or wanted.body is None or body.get("ops") == [], "a frame that left no trace")
    if not values and not letters:
        return "filtered" if kept_out else "no operations"
    if values:
        return "events and dead letters" if letters else "events"
    return "dead frame" if whole and not wanted.frame else "dead operations"


def _event(value: bytes, wanted: Expected) -> None:
    message = json.loads(value)
    kind, did = message["kind"], message["did"]
    must(rules.did(did) is not False, f"an event of {did[:100]!r}")
    must(type(message["seq"]) is int and 0 <= message["seq"] < oracle.MAX_SEQ, "an event without a seq")
    must(type(message["time_us"]) is int and type(message[kind]) is dict, "an event without time or body")
    if kind == "commit":
        commit = message[kind]
        must(rules.path(f"{commit['collection']}/{commit['rkey']}") is not False, "an event with a bad path")
        must(type(commit["rev"]) is str, "an event without a rev")
        must(
            ("record" in commit) == (commit["operation"] != "delete") == ("cid" in commit),
            "a record where none belongs, or none",
        )
    elif wanted.body is not None:
        body = wanted.body
        must(did == body["did"] == message[kind]["did"] and message["seq"] == wanted.seq, "an event of somebody else")


def _operations(body: dict[str, Any], ops: list[Any], values: list[bytes], kept_out: int, filtered: bool) -> None:
    """Each good operation is an event, no bad one is; in order; and each event is what its block says."""
    archive = Archive(body["blocks"])
    fates: list[rules.Fate] = []
    judged: dict[int, rules.Fate] = {}
    for op in ops:
        if id(op) not in judged:
            judged[id(op)] = oracle.operation(op, body["rev"], body.get("since"), archive)
        fates.append(judged[id(op)])
    least, most = fates.count(True), len(fates) - fates.count(False)
    must(
        least <= len(values) + kept_out and len(values) <= most,
        f"{least} to {most} operations are good, {len(values)} events came of them",
    )
    if kept_out or len(values) > 20:
        return
    at = 0
    for value in values:
        commit = json.loads(value)["commit"]
        while not _is(commit, ops[at]):
            must(fates[at] is not True or filtered, f"a good operation is no event: {str(ops[at])[:200]}")
            at += 1
            must(at < len(ops), f"an event that no operation made: {str(commit)[:200]}")
        must(fates[at] is not False, f"a bad operation is an event: {str(ops[at])[:200]}")
        _record(commit, ops[at], archive)
        at += 1


def _is(commit: dict[str, Any], op: Any) -> bool:
    return (
        type(op) is dict
        and op.get("path") == f"{commit['collection']}/{commit['rkey']}"
        and op.get("action") == commit["operation"]
        and (commit["operation"] == "delete" or _cid_text(op.get("cid")) == commit["cid"])
    )


def _cid_text(cid: Any) -> Any:
    raw = cid if type(cid) is bytes else getattr(cid, "cid", None)
    return None if raw is None else "b" + base64.b32encode(raw).decode().lower().rstrip("=")


def _record(commit: dict[str, Any], op: Any, archive: Archive) -> None:
    if commit["operation"] == "delete":
        return
    cid = op["cid"] if type(op["cid"]) is bytes else op["cid"].cid
    block = archive.block(cid) or archive.anywhere(cid)
    must(block is not None, "an event whose block is nowhere")
    assert block is not None
    must(
        len(block) > oracle.SURELY_SMALL or oracle.same(commit["record"], block),
        f"a record that is not what its block says: {str(commit['record'])[:300]}",
    )
