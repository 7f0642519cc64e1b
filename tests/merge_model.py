"""The merge rules once more, naively: events applied one by one to dicts. Shares nothing with the sink but TIDs.

The sink must give the same rows for any slicing of the log and for any replay in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from streams.firehose.tid import tid_from_us

BEGIN = 1_700_000_000_000_000
SECOND = 1_000_000
DIDS = ("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", "did:web:example.com")
COLLECTIONS = ("app.bsky.feed.like", "com.example.thing")
INACTIVE = ("takendown", "suspended", "deactivated")

Event = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """A Kafka record, as far as the sink looks at it."""

    offset: int
    key: bytes | None
    value: bytes | None


def rev(second: int) -> str:
    return tid_from_us(BEGIN + second * SECOND)


def message(offset: int, event: Event) -> Message:
    """An event as the topic has it."""
    return Message(offset, event["did"].encode(), json.dumps(event).encode())


def commit(did: str, rkey: str, second: int, value: int | None, collection: str = COLLECTIONS[0], **more: Any) -> Event:
    """An operation; ``value`` None is a delete. One commit has one rev, one seq and one time."""
    body: Event = {"rev": rev(second), "operation": "delete", "collection": collection, "rkey": rkey, "since": None}
    if value is not None:
        body |= {"operation": "create", "record": {"$type": collection, "value": value}, "cid": f"bafy{value}"}
    body |= more
    return {"did": did, "time_us": BEGIN + second * SECOND, "kind": "commit", "seq": 1000 + second, "commit": body}


def account(did: str, second: int, seq: int, status: str | None) -> Event:
    body = {"did": did, "active": status is None, "status": status}
    return {"did": did, "time_us": BEGIN + second * SECOND, "kind": "account", "seq": seq, "account": body}


def identity(did: str, second: int, seq: int, handle: str | None) -> Event:
    body = {"did": did} if handle is None else {"did": did, "handle": handle}
    return {"did": did, "time_us": BEGIN + second * SECOND, "kind": "identity", "seq": seq, "identity": body}


def sync(did: str, second: int, seq: int, to_second: int) -> Event:
    body = {"did": did, "rev": rev(to_second)}
    return {"did": did, "time_us": BEGIN + second * SECOND, "kind": "sync", "seq": seq, "sync": body}


@dataclass
class Model:
    """The tables as dicts."""

    records: dict[tuple[str, str, str], tuple[str, str | None, Any, int, int]] = field(default_factory=dict)
    actors: dict[str, dict[str, Any]] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        kind = event["kind"]
        getattr(self, f"_{kind}")(event["did"], (event["time_us"], event["seq"]), event[kind])

    def _commit(self, did: str, when: tuple[int, int], body: Event) -> None:
        if body["rev"] <= self.actors.get(did, {}).get("purged_rev", ""):
            return
        key = did, body["collection"], body["rkey"]
        held = self.records.get(key)
        new = body["rev"], body.get("cid"), body.get("record"), when[1], when[0]
        if held is None or new[0] > held[0] or (new[0] == held[0] and new[1] != held[1]):
            self.records[key] = new

    def _identity(self, did: str, when: tuple[int, int], body: Event) -> None:
        if body.get("handle") is None:
            return
        actor = self.actors.setdefault(did, {})
        if when > actor.get("handle_when", (-1, -1)):
            actor |= {"handle": body["handle"], "handle_when": when}

    def _account(self, did: str, when: tuple[int, int], body: Event) -> None:
        actor = self.actors.setdefault(did, {})
        newest = when > actor.get("account_when", (-1, -1))
        if newest:
            actor |= {"active": body["active"], "status": body["status"], "account_when": when}
        if body["status"] != "deleted":
            return
        revs = [tid_from_us(when[0], 1023), actor.get("purged_rev", "")]
        if newest:
            revs += [actor.get("stale_rev", "")] + [row[0] for key, row in self.records.items() if key[0] == did]
        actor["purged_rev"] = max(revs)
        if actor.get("stale_rev", "") <= max(revs):
            actor.pop("stale_rev", None)
        for key in [k for k, row in self.records.items() if k[0] == did and row[0] <= max(revs)]:
            del self.records[key]

    def _sync(self, did: str, when: tuple[int, int], body: Event) -> None:
        actor = self.actors.setdefault(did, {})
        if when <= actor.get("sync_when", (-1, -1)):
            return
        actor["sync_when"] = when
        revs = [row[0] for key, row in self.records.items() if key[0] == did]
        if revs and body["rev"] > max(revs):
            actor["stale_rev"] = max(actor.get("stale_rev", ""), body["rev"])


_seconds = st.integers(0, 12)


@st.composite
def _events(draw: st.DrawFn) -> list[Event]:
    """A log of events of few accounts and few keys, so that everything meets everything."""
    events: list[Event] = []
    for number in range(draw(st.integers(1, 30))):
        did, second = draw(st.sampled_from(DIDS)), draw(_seconds)
        kind = draw(st.sampled_from("cccccccaadis"))
        if kind == "c":
            rkey, collection = draw(st.sampled_from("xy")), draw(st.sampled_from(COLLECTIONS))
            events.append(commit(did, rkey, second, draw(st.none() | st.integers(0, 2)), collection))
        elif kind == "a":
            events.append(account(did, second, 2000 + number, draw(st.sampled_from((None, *INACTIVE)))))
        elif kind == "d":
            events.append(account(did, second, 2000 + number, "deleted"))
        elif kind == "i":
            events.append(identity(did, second, 2000 + number, draw(st.sampled_from((None, "a.test", "b.test")))))
        else:
            events.append(sync(did, second, 2000 + number, draw(_seconds)))
    return events


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Event], list[Event], list[int]]:
    """Events; the same with stretches sent again, as an ingest does that resumes; and the lengths of its slices."""
    events = draw(_events())
    log: list[Event] = []
    reached = 0
    while reached < len(events):
        end = draw(st.integers(reached + 1, len(events)))
        log += events[draw(st.integers(0, reached)) : end]
        reached = end
    cuts = draw(st.lists(st.integers(1, 12), min_size=1, max_size=8))
    return events, log, cuts


def slices(log: list[Event], cuts: list[int]) -> list[list[Message]]:
    """The log in slices of these lengths, in turn."""
    messages = [message(offset, event) for offset, event in enumerate(log)]
    parts, begin, turn = [], 0, 0
    while begin < len(messages):
        length = cuts[turn % len(cuts)]
        parts.append(messages[begin : begin + length])
        begin, turn = begin + length, turn + 1
    return parts
