"""Every message of the topic accounted for: where in the tables it is, or which other message took its place.

An accountant that shares nothing with the pipeline: plain JSON on one side, plain rows on the other. What it cannot
place is lost.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import asyncpg

Row = Mapping[str, Any]


class Ledger:
    """The books over one schema's rows. ``messages`` are the topic's, decoded, with ``partition`` and ``offset``."""

    def __init__(self, records: Iterable[Row], actors: Iterable[Row], letters: Iterable[Row]) -> None:
        self._records = {(r["did"], r["collection"], r["rkey"]): (r["rev"], r["cid"], r["live"]) for r in records}
        self._actors = {row["did"]: row for row in actors}
        letters = list(letters)
        self._buried = {(row["partition"], row["offset"]) for row in letters}
        self._told = {(row["seq"], row["reason"]) for row in letters}

    @classmethod
    async def of(cls, dsn: str, schema: str) -> Ledger:
        """Read the schema."""
        connection = await asyncpg.connect(dsn)
        try:
            return cls(
                await connection.fetch(
                    f"SELECT did, collection, rkey, rev, cid, record IS NOT NULL AS live FROM {schema}.records"
                ),
                await connection.fetch(f"SELECT * FROM {schema}.actors"),
                await connection.fetch(f"SELECT * FROM {schema}.dead_letters"),
            )
        finally:
            await connection.close()

    def account(self, messages: Iterable[Row]) -> tuple[Counter[str], list[Row]]:
        """How many messages there are of each fate, and those that are lost. Control messages are none."""
        fates: Counter[str] = Counter()
        lost = []
        for message in messages:
            fate = self._fate(message)
            if fate is not None:
                fates[fate] += 1
            if fate == "lost":
                lost.append(message)
        return fates, lost

    def _fate(self, message: Row) -> str | None:  # noqa: PLR0911 (one a kind)
        if (message["partition"], message["offset"]) in self._buried:
            return "dead letter"
        match message["kind"]:
            case "commit":
                return self._of_commit(message)
            case "identity":
                handle = message["identity"].get("handle")
                return "nothing to store" if handle is None else self._of_state(message, "handle")
            case "account":
                return self._of_state(message, "account")
            case "sync":
                return self._of_state(message, "sync")
            case "dead_letter":
                # The same bytes without a seq are one row; those of a deleted account went with it.
                told = (message["seq"], message["reason"]) in self._told
                return "dead letter, told" if told or self._purged_at(message) else "lost"
            case _:
                return None

    def _of_commit(self, message: Row) -> str:
        commit = message["commit"]
        actor = self._actors.get(message["did"])
        if actor is not None and actor["purged_rev"] is not None:
            overtaken = (actor["deleted_rev"] or "") >= commit["rev"] and actor["deleted_seq"] > message["seq"]
            if actor["purged_rev"] >= commit["rev"] or overtaken:
                return "purged"
        row = self._records.get((message["did"], commit["collection"], commit["rkey"]))
        if row is None or row[0] < commit["rev"]:
            return "lost"
        if row[0] > commit["rev"]:
            return "superseded"
        same = row[2] is (commit["operation"] != "delete") and row[1] == commit.get("cid")
        # Two operations of one commit on one key: the later one stands.
        return "stored" if same else "superseded in its commit"

    def _of_state(self, message: Row, what: str) -> str:
        actor = self._actors.get(message["did"])
        if actor is None or actor[f"{what}_seq"] is None:
            return "lost"
        place = message.get("place") or {"sequence": None, "time": message["time_us"]}
        seq, sequence = actor[f"{what}_seq"], actor[f"{what}_sequence"]
        if place["sequence"] == sequence and sequence is not None:
            held, told = (seq,), (message["seq"],)
        else:
            time_us = round(actor[f"{what}_time"].timestamp() * 1e6)
            held, told = (time_us, sequence or 0, seq), (place["time"], place["sequence"] or 0, message["seq"])
        return "stored" if held == told else "superseded" if held > told else "lost"

    def _purged_at(self, message: Row) -> bool:
        actor = self._actors.get(message.get("did"))
        return actor is not None and actor["purged_at"] is not None


def event_of(message: Row) -> str | None:
    """What names an event, however often it was sent, and under whichever seq; None for what is no event."""
    kind = message["kind"]
    if kind not in ("commit", "identity", "account", "sync"):
        return None
    if kind == "commit":
        commit = message["commit"]
        return json.dumps([message["did"], *(commit.get(name) for name in ("rev", "collection", "rkey", "operation"))])
    # An account may be told the same twice; its states never get a wrong seq.
    return json.dumps([message["did"], kind, message["seq"], message[kind]])
