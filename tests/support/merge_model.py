"""The merge rules once more, naively: events applied one by one to dicts. Shares nothing with the sink but TIDs.

The sink must give the same rows for any slicing of the log and for any replay in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from streams.protocol.tid import tid_from_us

BEGIN = 1_700_000_000_000_000
SECOND = 1_000_000
#: An rkey of the time of the revs: a record that is created with it is expected to be new to the table.
NEW_RKEY = tid_from_us(BEGIN, 7)
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


def account(did: str, second: int, seq: int, status: str | None, **more: Any) -> Event:
    body = {"did": did, "active": status is None, "status": status}
    return {"did": did, "time_us": BEGIN + second * SECOND, "kind": "account", "seq": seq, "account": body, **more}


def identity(did: str, second: int, seq: int, handle: str | None, **more: Any) -> Event:
    body = {"did": did} if handle is None else {"did": did, "handle": handle}
    return {"did": did, "time_us": BEGIN + second * SECOND, "kind": "identity", "seq": seq, "identity": body, **more}


def sync(did: str, second: int, seq: int, to_second: int, **more: Any) -> Event:
    body = {"did": did, "rev": rev(to_second)}
    return {"did": did, "time_us": BEGIN + second * SECOND, "kind": "sync", "seq": seq, "sync": body, **more}


def place(sequence: int, second: int) -> dict[str, Any]:
    """Where an event stands, to be put into it."""
    return {"place": {"sequence": sequence, "time": BEGIN + second * SECOND}}


#: Sequence (None: not known), believed time and seq of an event.
When = tuple[int | None, int, int]


@dataclass
class Model:
    """The tables as dicts."""

    records: dict[tuple[str, str, str], tuple[str, str | None, Any, int, int]] = field(default_factory=dict)
    actors: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: All that was said: of each account and kind, by sequence, the newest time and the latest seq with what it said.
    _said: dict[tuple[str, str], dict[int, tuple[int, int, Any]]] = field(default_factory=dict, compare=False)

    def apply(self, event: Event) -> None:
        did, kind, claimed, seq = event["did"], event["kind"], event["time_us"], event["seq"]
        body, stands = event[kind], event.get("place")
        when = (stands["sequence"], stands["time"], seq) if stands else (None, claimed, seq)
        if kind == "commit":
            self.commit(did, body, claimed, seq)
        elif kind == "identity":
            if body.get("handle") is not None:
                self.handle(did, when, body["handle"])
        elif kind == "sync":
            self.sync(did, when, body["rev"])
        elif body["status"] == "deleted":
            reach = tid_from_us(min(claimed, when[1] + 300 * SECOND), 1023) if stands else None
            self.deletion(did, when, tid_from_us(min(claimed, when[1]), 1023), reach)
        else:
            self.account(did, when, body["active"], body["status"])

    def commit(self, did: str, body: Event, time: int, seq: int) -> None:
        actor = self.actors.get(did, {})
        if body["rev"] <= actor.get("purged_rev", ""):
            return
        if body["rev"] <= actor.get("deleted_rev", "") and seq < actor["deleted_seq"]:
            return
        key = did, body["collection"], body["rkey"]
        held = self.records.get(key)
        new = body["rev"], body.get("cid"), body.get("record"), seq, time
        if held is None or new[0] > held[0] or (new[0] == held[0] and new[1] != held[1]):
            self.records[key] = new

    def handle(self, did: str, when: When, handle: str) -> None:
        self._say(did, "handle", when, {"handle": handle})

    def account(self, did: str, when: When, active: bool, status: str | None) -> None:
        self._say(did, "account", when, {"active": active, "status": status})

    def deletion(self, did: str, when: When, rev: str, reach: str | None) -> None:
        newest = self._say(did, "account", when, {"active": False, "status": "deleted"})
        actor = self.actors[did]
        revs = [rev, actor.get("purged_rev", "")]
        if newest:
            revs += [actor.get("stale_rev", "")] + [row[0] for key, row in self.records.items() if key[0] == did]
            if reach is not None:
                actor["deleted_rev"] = max(reach, actor.get("deleted_rev", ""))
                actor["deleted_seq"] = max(when[2], actor.get("deleted_seq", 0))
        actor["purged_rev"] = max(revs)
        if actor.get("stale_rev", "") <= max(revs):
            actor.pop("stale_rev", None)
        for key in [k for k, row in self.records.items() if k[0] == did and row[0] <= max(revs)]:
            del self.records[key]

    def sync(self, did: str, when: When, to_rev: str) -> None:
        if self._say(did, "sync", when, {}):
            actor = self.actors[did]
            revs = [row[0] for key, row in self.records.items() if key[0] == did]
            if revs and to_rev > max(revs):
                actor["stale_rev"] = max(actor.get("stale_rev", ""), to_rev)

    def _say(self, did: str, kind: str, when: When, what: dict[str, Any]) -> bool:
        """Note an event, and make the actor what the latest of all says. Whether that is this one."""
        sequence, time, seq = when[0] or 0, when[1], when[2]
        said = self._said.setdefault((did, kind), {})
        held = said.get(sequence, (-1, -1, None))
        later = seq > held[1] if sequence else (time, seq) > held[:2]
        if later:
            said[sequence] = (max(time, held[0]), seq, what)
        elif sequence:
            said[sequence] = (max(time, held[0]), *held[1:])
        winner = max(said, key=lambda number: (said[number][0], number))
        newest, last, words = said[winner]
        actor = self.actors.setdefault(did, {})
        actor |= {**words, f"{kind}_when": (winner or None, newest, last)}
        return later and winner == sequence


_seconds = st.integers(0, 12)


@st.composite
def _places(draw: st.DrawFn, count: int) -> list[tuple[int, dict[str, Any]]]:
    """A seq, and what stands for its place, for each of so many events.

    Without places (an older version's topic); one sequence, its seqs in any order; places from some event on; or two
    sequences, the second of which begins again with low seqs.
    """
    kind = draw(st.sampled_from(("none", "one", "later", "two")))
    seqs = draw(st.permutations(range(2000, 2000 + count))) if kind == "one" else list(range(2000, 2000 + count))
    split = 0 if kind == "one" else count if kind == "none" else draw(st.integers(0, count))
    places: list[tuple[int, dict[str, Any]]] = []
    for number, seq in enumerate(seqs):
        if number < split and kind != "two":
            places.append((seq, {}))
        elif number < split:
            places.append((seq, place(7, draw(_seconds))))
        else:
            places.append((seq - 1900 if kind == "two" else seq, place(8, draw(_seconds))))
    return places


@st.composite
def _events(draw: st.DrawFn) -> list[Event]:
    """A log of events of few accounts and few keys, so that everything meets everything."""
    events: list[Event] = []
    for seq, stands in draw(_places(draw(st.integers(1, 30)))):
        did, second = draw(st.sampled_from(DIDS)), draw(_seconds)
        kind = draw(st.sampled_from("cccccccaadis"))
        if kind == "c":
            rkey, collection = draw(st.sampled_from(("x", "y", NEW_RKEY))), draw(st.sampled_from(COLLECTIONS))
            events.append(commit(did, rkey, second, draw(st.none() | st.integers(0, 2)), collection))
        elif kind == "a":
            events.append(account(did, second, seq, draw(st.sampled_from((None, *INACTIVE))), **stands))
        elif kind == "d":
            events.append(account(did, second, seq, "deleted", **stands))
        elif kind == "i":
            events.append(identity(did, second, seq, draw(st.sampled_from((None, "a.test", "b.test"))), **stands))
        else:
            events.append(sync(did, second, seq, draw(_seconds), **stands))
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
