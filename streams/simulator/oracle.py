"""The state that must be true after the generated frames: the generator's own model, never read from the frames.

The file is one JSON document (gzipped where its name ends in ``.gz``) with a line for each account, so that it can be
written and read in pieces::

    {"version": 1, "first_seq": …, "last_seq": …, "last_time": …, "counts": {…},
     "expected_dead": 0, "expected_skipped": 0, "expected_resets": 0, "arranged": {…}, "bad_frames": […],
     "accounts": {did: {"handle", "active", "status", "deleted", "hidden", "reset_rev"}},
     "records": {did: {"collection/rkey": {"cid", "rev", "value"}}}}

``accounts`` has the DIDs that an #identity, #account or #sync named; the records of deleted accounts are gone, those
of hidden accounts (taken down, suspended, deactivated) are there. ``expected_dead`` counts the operations that must be
dead letters while the rest of their commit goes through; ``expected_skipped`` the frames that give no event at all
(each may be a dead letter, or skipped and counted). ``expected_resets`` counts the places where the sequence begins
anew; ``arranged`` what was done to the order and the claims of frames, by kind, which changes nothing of the rest:
the highest rev of a key wins, and the later seq of an account's states. ``reset_rev`` is the rev of a #sync that no
commit announced: records with an older rev, if any, are stale.
"""

from __future__ import annotations

import base64
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, TypedDict, cast

import orjson

from streams.errors import SettingsError
from streams.simulator.recording import iso_time
from streams.simulator.repository import cid_text

#: States that hide an account's records without removing them.
HIDING: Final = frozenset({"takendown", "suspended", "deactivated"})


class Record(TypedDict):
    """One live record. ``value`` is in the API's JSON form; ``rev`` is None where the source does not know it."""

    cid: str
    rev: str | None
    value: Any


class OracleAccount(TypedDict):
    """An account's state as the stream said it last."""

    handle: str | None
    active: bool
    status: str | None
    deleted: bool
    hidden: bool
    reset_rev: str | None


class State(TypedDict, total=False):
    """A whole oracle. The recording's has only ``accounts`` and ``records``."""

    version: int
    first_seq: int | None
    last_seq: int | None
    last_time: str | None
    counts: dict[str, Any]
    expected_dead: int
    expected_skipped: int
    expected_resets: int
    arranged: dict[str, int]
    bad_frames: list[dict[str, Any]]
    accounts: dict[str, OracleAccount]
    records: dict[str, dict[str, Record]]


class Oracle:
    """The result of the generator's events, from the first retained frame on (``from_seq``, ``from_us``).

    The generator announces each frame, then tells what it means. What comes before the retained window is not known
    here, as a client of that relay cannot know it either. ``keep_records`` False only counts.
    """

    def __init__(self, from_seq: int = 0, from_us: int = 0, *, keep_records: bool = True) -> None:
        self.from_seq, self.from_us, self.keep_records = from_seq, from_us, keep_records
        self.open = False
        self.first_seq: int | None = None
        self.last_seq: int | None = None
        self.last_us = 0
        self.frames: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.collections: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.dead = self.skipped = self.resets = 0
        self.arranged: Counter[str] = Counter()
        self.bad_frames: list[dict[str, Any]] = []
        self._accounts: dict[str, OracleAccount] = {}
        self._records: dict[str, dict[str, tuple[bytes, str, bytes]]] = {}

    def frame(self, kind: str, seq: int, time_us: int) -> bool:
        """Note that a frame with a seq of its own follows. Return True if it is in the retained window, and counts."""
        if not self.open:
            if seq < self.from_seq or time_us < self.from_us:
                return False
            self.open, self.first_seq = True, seq
        self.frames[kind] += 1
        self.last_seq, self.last_us = seq, time_us
        return True

    def write(self, did: str, path: str, action: str, rev: str, cid: bytes | None, *, value: object) -> None:
        """Apply one operation of a commit, in the order of the commit."""
        if not self.open:
            return
        self.events["commit"] += 1
        self.operations[action] += 1
        self.collections[path.partition("/")[0]] += 1
        if not self.keep_records:
            return
        records = self._records.setdefault(did, {})
        if cid is None:
            records.pop(path, None)
        else:
            # Copied: what dumps() returns is a shrunk 1 KB buffer, and a million of them leave holes everywhere.
            records[path] = (cid, rev, bytes(memoryview(orjson.dumps(value))))

    def identity(self, did: str, handle: str | None) -> None:
        """Apply an #identity. Without a handle it does not change the handle."""
        if self.open:
            self.events["identity"] += 1
            account = self._account(did)
            account["handle"] = handle if handle is not None else account["handle"]

    def account(self, did: str, *, active: bool, status: str | None) -> None:
        """Apply an #account. The status ``deleted`` removes the account's records."""
        if not self.open:
            return
        self.events["account"] += 1
        account = self._account(did)
        account["active"], account["status"] = active, status
        account["deleted"] = not active and status == "deleted"
        account["hidden"] = not active and status in HIDING
        if account["deleted"]:
            self._records.pop(did, None)

    def sync(self, did: str, rev: str, *, reset: bool) -> None:
        """Apply a #sync. ``reset``: its rev is newer than every commit's, so all held records are stale."""
        if self.open:
            self.events["sync"] += 1
            account = self._account(did)
            account["reset_rev"] = rev if reset else account["reset_rev"]

    def bad(self, kind: str, seq: int | None, did: str | None, *, dead: int = 0, skipped: int = 0) -> None:
        """Count a bad frame: ``dead`` operations become dead letters, or the frame gives nothing (``skipped`` 1)."""
        if self.open or seq is None:
            self.dead += dead
            self.skipped += skipped
            self.bad_frames.append({"kind": kind, "seq": seq, "did": did, "dead": dead, "skipped": skipped})

    def reset(self) -> None:
        """Note that the relay's sequence begins anew with the next frame."""
        self.resets += self.open

    def state(self) -> State:
        """Return the whole state, values decoded. For small runs; ``write_to`` needs no second copy."""
        state = self._summary()
        state["accounts"] = self._accounts
        state["records"] = {did: orjson.loads(line) for did, line in self._record_lines()}
        return state

    def write_to(self, path: Path) -> None:
        """Write the oracle's file."""
        with cast(IO[bytes], gzip.open(path, "wb", 3) if path.suffix == ".gz" else path.open("wb")) as file:
            file.write(orjson.dumps(self._summary())[:-1])
            file.write(b',\n"accounts": {')
            self._write_lines(file, ((did, orjson.dumps(account)) for did, account in self._accounts.items()))
            file.write(b'\n},\n"records": {')
            self._write_lines(file, self._record_lines())
            file.write(b"\n}}\n")

    @staticmethod
    def _write_lines(file: IO[bytes], lines: Iterator[tuple[str, bytes]]) -> None:
        for number, (did, line) in enumerate(lines):
            file.write(b"%s\n%s: %s" % (b"," if number else b"", orjson.dumps(did), line))

    def _record_lines(self) -> Iterator[tuple[str, bytes]]:
        for did, records in self._records.items():
            if records:
                rows = (
                    b'%s:{"cid":"%s","rev":"%s","value":%s}'
                    % (orjson.dumps(path), cid_text(cid).encode(), rev.encode(), value)
                    for path, (cid, rev, value) in records.items()
                )
                yield did, b"{" + b",".join(rows) + b"}"

    def _summary(self) -> State:
        return {
            "version": 1,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "last_time": iso_time(self.last_us) if self.last_seq is not None else None,
            "counts": {
                "frames": self.frames.total(),
                "frames_by_type": dict(self.frames),
                "events": self.events.total(),
                "events_by_kind": dict(self.events),
                "operations": dict(self.operations),
                "collections": dict(self.collections),
                "records": sum(map(len, self._records.values())),
            },
            "expected_dead": self.dead,
            "expected_skipped": self.skipped,
            "expected_resets": self.resets,
            "arranged": dict(self.arranged),
            "bad_frames": self.bad_frames,
        }

    def _account(self, did: str) -> OracleAccount:
        account = self._accounts.get(did)
        if account is None:
            account = self._accounts[did] = unnamed_account()
        return account


def unnamed_account() -> OracleAccount:
    """Return an account of which the stream has said nothing."""
    return {"handle": None, "active": True, "status": None, "deleted": False, "hidden": False, "reset_rev": None}


def load_oracle(path: Path) -> State:
    """Read an oracle's file whole. Raises SettingsError if it is not an oracle's."""
    try:
        with cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
            state: State = orjson.loads(file.read())
    except (OSError, ValueError) as error:
        raise SettingsError(f"The oracle {path} cannot be read: {error}.") from error
    if state.get("version") != 1:
        raise SettingsError(f"{path} is not an oracle of the development relay.")
    return state


def iter_records(path: Path) -> Iterator[tuple[str, dict[str, Record]]]:
    """Yield the records of an oracle's file, one account at a time: for files too big to be read whole."""
    with cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
        for line in file:
            if line.startswith(b'"records": {'):
                break
        for line in file:
            if line == b"}}\n":
                return
            yield from orjson.loads(b"{%s}" % line.rstrip(b",\n")).items()


def load_pds_state(path: Path) -> State:
    """Return the recording's state.json.gz (tests/fixtures/pds) in the same shape; revs are not in it.

    In records of unknown lexicons the PDS's API printed byte strings as ``{"0": 98, "1": 121, …}`` instead of
    ``{"$bytes": …}``; that they are bytes is proven by the records' CIDs. They are put right here.
    """
    said = orjson.loads(gzip.decompress(path.read_bytes()))
    accounts: dict[str, OracleAccount] = {}
    records: dict[str, dict[str, Record]] = {}
    for did, answer in said.items():
        status = None if answer["status"] == "active" else answer["status"]
        accounts[did] = unnamed_account() | {
            "handle": answer.get("handle"),
            "active": status is None,
            "status": status,
            "deleted": status == "deleted",
            "hidden": status in HIDING,
        }
        if "records" in answer:
            records[did] = {
                path: {"cid": record["cid"], "rev": None, "value": _as_bytes(record["value"])}
                for path, record in answer["records"].items()
            }
    return {"accounts": accounts, "records": records}


def _as_bytes(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    if isinstance(value, list):
        return [_as_bytes(item) for item in value]
    if isinstance(value, dict):
        if value and all(key == str(number) for number, key in enumerate(value)):
            return {"$bytes": base64.b64encode(bytes(value.values())).decode().rstrip("=")}
        return {key: _as_bytes(item) for key, item in value.items()}
    return value


def fold_nul(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Return a value with NUL as U+FFFD, in keys too: as it is stored, since jsonb cannot hold NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [fold_nul(item) for item in value]
    if isinstance(value, dict):
        return {fold_nul(key): fold_nul(item) for key, item in value.items()}
    return value


def differences(expected: dict[str, dict[str, Record]], found: dict[str, dict[str, Any]], limit: int = 20) -> list[str]:
    """Return a sentence for each record that is missing, too many, or different (NUL aside): at most ``limit``.

    ``found`` has the same shape; a rev is compared only where both know it.
    """
    problems: list[str] = []
    for did in sorted(expected.keys() | found.keys()):
        want, have = expected.get(did, {}), found.get(did, {})
        for path in sorted(want.keys() | have.keys()):
            problem = _difference(want.get(path), have.get(path))
            if problem:
                problems.append(f"{did}/{path}: {problem}")
                if len(problems) >= limit:
                    return problems
    return problems


def _difference(want: Record | None, have: Any) -> str | None:  # noqa: ANN401 (a row of any origin)
    if want is None:
        return "is there, and should not be"
    if have is None:
        return "is missing"
    if have["cid"] != want["cid"]:
        return f"has CID {have['cid']}, expected {want['cid']}"
    if want["rev"] is not None and have.get("rev") not in (None, want["rev"]):
        return f"has rev {have['rev']}, expected {want['rev']}"
    if have["value"] != want["value"] and have["value"] != fold_nul(want["value"]):
        return "has another value"
    return None
