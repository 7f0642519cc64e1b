"""Seeded traffic that looks like the network's: frames on one side, the model of what they mean on the other.

The same plan gives the same bytes. Events are counted as the pipeline counts them: each operation of a commit, each
#identity, #account and #sync. About 80 µs a frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from streams.simulator.faults import FRAME_KINDS, bad_frame
from streams.simulator.oracle import Oracle
from streams.simulator.rates import DENSE, TrafficRates
from streams.simulator.recording import Frame, iso_time
from streams.simulator.records import FOLLOW, LIKE, POST, REPOST, SINGLETONS, RecordMaker
from streams.simulator.repository import TreeMaker, car, cid_of, commit_block, encode, encode_value, link, tid

#: Faults inside a commit: one operation is bad, the others are good.
OPERATION_KINDS: Final = ("missing_block", "wrong_cid", "bad_path", "bad_record", "not_utf8", "too_deep")
#: Everything that a plan can put into the traffic itself.
BAD_KINDS: Final = (*OPERATION_KINDS, "too_big", *FRAME_KINDS)
#: The largest commits that the protocol allows, each in turn: operations, and bytes of records beyond the ordinary.
LARGE_COMMITS: Final = ((200, 0), (20, 2_000_000), (48, 4_700_000), (2, 2_000_000))
#: Statuses of #account, each in turn. None is an account that is active again.
STATUSES: Final = ("deactivated", "deleted", "takendown", "throttled", "suspended", "desynchronized", "deleted")

_DAY_US: Final = 86_400_000_000
_HEADERS: Final = {t: encode({"op": 1, "t": t}) for t in ("#commit", "#identity", "#account", "#sync")}
_BAD_PATHS: Final = (
    "app.bsky.feed.post",
    "",
    "app.bsky.feed.post/",
    "/3kztiuvx7zs2n",
    "not a collection/3kztiuvx7zs2n",
)
#: Records that an account may still delete or update; older ones stay for good.
_REMEMBERED: Final = 200


class BadFrame(NamedTuple):
    """A bad frame to put into the traffic once ``event`` good events are out."""

    kind: str
    event: int


class Reset(NamedTuple):
    """A reset: the relay's sequence begins anew at ``seq`` once ``event`` events are out."""

    event: int
    seq: int = 1


@dataclass(frozen=True)
class Plan:
    """A plan of traffic. ``end_us``: the time of the last of the first ``events - live_events`` events (now, if 0).

    The frames' times are spread evenly over the ``days_span`` days before it; the last ``live_events`` follow
    ``1/live_rate`` seconds apart. ``resets``: where the relay's sequence begins anew, in order.
    ``large_every``: after each so many events there is one of LARGE_COMMITS (0: never). ``rates``: of what is rare.
    """

    events: int
    seed: int = 0
    days_span: float = 1.0
    end_us: int = 0
    accounts: int = 0
    first_seq: int = 5_000_000_001
    live_events: int = 0
    live_rate: float = 100.0
    resets: tuple[Reset, ...] = ()
    bad: tuple[BadFrame, ...] = field(default=())
    large_every: int = 0
    rates: TrafficRates = DENSE


class GeneratedAccount:
    """One account of the model."""

    __slots__ = (
        "active", "born", "clock", "data", "depth", "did", "graves", "handle", "live", "number", "purged_us", "rev",
        "rev_us", "rkey_us", "status",
    )  # fmt: skip

    def __init__(self, number: int, did: str, clock: int, depth: int) -> None:
        self.number, self.did, self.clock, self.depth = number, did, clock, depth
        self.handle = f"user{number}.example.com"
        self.born = False
        self.active, self.status = True, None  # type: tuple[bool, str | None]
        self.rev: str | None = None
        self.data: bytes | None = None
        self.rev_us = self.rkey_us = self.purged_us = 0
        self.live: dict[str, bytes] = {}
        self.graves: list[str] = []


class Operation(NamedTuple):
    """One operation of a commit under way."""

    action: str
    path: str
    cid: bytes | None
    previous: bytes | None


class Traffic:
    """A run of the generator. ``frames()`` may be taken once; ``oracle`` is then complete."""

    def __init__(self, plan: Plan, oracle: Oracle | None = None) -> None:
        self.plan, self.oracle = plan, oracle or Oracle()
        self._random = Random(plan.seed)  # noqa: S311 (seeded on purpose)
        self._end_us = plan.end_us or time.time_ns() // 1000
        self._span_us = int(plan.days_span * _DAY_US)
        self._old_events = max(1, plan.events - plan.live_events)
        self._trees = TreeMaker(self._random)
        self._records = RecordMaker(self._random)
        count = plan.accounts or max(10, plan.events // 50)
        self._accounts = [self._new_account(n) for n in range(count)]
        self._known: list[GeneratedAccount] = []
        self._inactive: list[GeneratedAccount] = []
        self._bad = sorted(plan.bad, key=lambda bad: bad.event, reverse=True)
        self._seq = plan.first_seq - 1
        self._resets = list(reversed(plan.resets))
        self._anew = False
        self._changes = 0
        self._large = 0
        self._padding = 0
        self.emitted = 0
        self._time_us = 0
        self._counts = False

    # -- the stream

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order, until exactly ``plan.events`` events are out."""
        while self.emitted < self.plan.events:
            while self._bad and self._bad[-1].event <= self.emitted:
                yield from self._bad_frames(self._bad.pop().kind)
            if self.plan.large_every and self.emitted >= (self._large + 1) * self.plan.large_every:
                yield self._large_commit()
            if self._resets and self.emitted >= self._resets[-1].event:
                self._seq, self._anew = self._resets.pop().seq - 1, True
                self.oracle.reset()
            yield from self._step()
        while self._bad:
            yield from self._bad_frames(self._bad.pop().kind)

    def _step(self) -> Iterator[Frame]:
        """Yield the frames of one step: usually a commit of some account."""
        r, x, rates = self._random, self._random.random(), self.plan.rates
        if x < rates.identity and self._known:
            yield self._identity(r.choice(self._known))
        elif x < rates.status and self._known:
            yield self._change_status(r.choice(self._known))
        elif x < rates.revival and self._inactive:
            yield from self._revive(self._inactive.pop(int(r.random() * len(self._inactive))))
        elif x < rates.reset and self._known:
            yield from self._reset_repository(r.choice(self._known))
        else:
            account = self._somebody()
            if not account.born:
                account.born = True
                self._known.append(account)
                if r.random() < rates.birth and self._left() > 3:
                    yield from self._birth(account)
                    return
                account.rev, account.data = (
                    tid(self._end_us - 9 * self._span_us, account.clock),
                    cid_of(account.did.encode()),
                )
            yield self._commit(account, 0 if x > 0.99 else self._size())

    def _somebody(self) -> GeneratedAccount:
        """Choose an active account by Zipf's law: the k-th is chosen 1/k as often as the first."""
        for _ in range(20):
            account = self._accounts[int((len(self._accounts) + 1) ** self._random.random()) - 1]
            if account.active:
                return account
        return next((a for a in self._accounts if a.active), self._fresh_account())

    def _fresh_account(self) -> GeneratedAccount:
        self._accounts.append(self._new_account(len(self._accounts)))
        return self._accounts[-1]

    def _size(self) -> int:
        """Choose how many operations a commit has."""
        x = self._random.random()
        if x < 0.97:
            return 1
        if x < 0.997:
            return self._random.randint(2, 8)
        return self._random.randint(9, 60) if x < 0.9998 else 200

    def _left(self) -> int:
        return self.plan.events - self.emitted

    def _new_account(self, number: int) -> GeneratedAccount:
        r = self._random
        did = "did:plc:" + "".join(r.choices("abcdefghijklmnopqrstuvwxyz234567", k=24))
        if number % 97 == 96:
            did = f"did:web:user{number}.example.com"
        return GeneratedAccount(number, did, r.randrange(32), 5 if number < 50 else r.choice((3, 4, 4, 5)))

    # -- frames

    def _begin(self, kind: str) -> str:
        """Take the next seq and time, and tell the oracle of the frame. Return the time as text."""
        r = self._random
        self._seq += 1 if r.random() < 0.93 else r.randint(2, 6)
        old = min(self.emitted + 1, self._old_events)
        self._time_us = self._end_us - self._span_us + self._span_us * old // self._old_events
        self._time_us += int((self.emitted + 1 - old) * 1e6 / self.plan.live_rate)
        self._counts = self.oracle.frame(kind, self._seq, self._time_us)
        return iso_time(self._time_us)

    def _frame(self, kind: str, body: dict[str, Any]) -> Frame:
        anew, self._anew = self._anew, False
        return Frame(self._seq, self._time_us, _HEADERS[kind] + encode_value(body), anew=anew)

    def _identity(self, account: GeneratedAccount) -> Frame:
        stamp = self._begin("#identity")
        body: dict[str, Any] = {"did": account.did, "seq": self._seq, "time": stamp}
        x = self._random.random()
        if x < 0.3:
            self.oracle.identity(account.did, None)
        else:
            if x < 0.7:
                account.handle = f"user{account.number}-{self._seq % 10_000}.example.com"
            body["handle"] = "handle.invalid" if x > 0.97 else account.handle
            self.oracle.identity(account.did, body["handle"])
        self.emitted += 1
        return self._frame("#identity", body)

    def _account(self, account: GeneratedAccount, *, active: bool, status: str | None) -> Frame:
        stamp = self._begin("#account")
        account.active, account.status = active, status
        body: dict[str, Any] = {"did": account.did, "seq": self._seq, "time": stamp, "active": active}
        if status is not None:
            body["status"] = status
        self.oracle.account(account.did, active=active, status=status)
        if status == "deleted":
            account.purged_us = self._time_us
            account.live.clear()
            account.graves.clear()
        self.emitted += 1
        return self._frame("#account", body)

    def _change_status(self, account: GeneratedAccount) -> Frame:
        if not account.active:
            gone = account.status == "deleted" or self._random.random() < 0.5
            return self._identity(account) if gone else self._account(account, active=False, status="deleted")
        status = STATUSES[self._changes % len(STATUSES)]
        self._changes += 1
        active = status == "throttled"  # a throttled account still writes
        if not active:
            self._inactive.append(account)
        return self._account(account, active=active, status=status)

    def _revive(self, account: GeneratedAccount) -> Iterator[Frame]:
        """Make an inactive account active again, and let it write. One that was deleted begins anew."""
        was_deleted = account.status == "deleted"
        yield self._account(account, active=True, status=None)
        if was_deleted and self._left() > 1:
            yield self._identity(account)
        if self._left():
            yield self._commit(account, 1)

    def _birth(self, account: GeneratedAccount) -> Iterator[Frame]:
        """Make an account, with the frames that a PDS sends: #sync repeats the rev of the empty commit before it."""
        stamp = self._begin("#identity")
        self.oracle.identity(account.did, account.handle)
        self.emitted += 1
        yield self._frame("#identity", {"did": account.did, "seq": self._seq, "time": stamp, "handle": account.handle})
        yield self._account(account, active=True, status=None)
        yield self._commit(account, 0)
        yield self._sync(account, account.rev or "", reset=False)

    def _reset_repository(self, account: GeneratedAccount) -> Iterator[Frame]:
        """Make a #sync with a rev that no commit announced: the repository was reset."""
        if account.active and account.rev is not None:
            yield self._sync(account, self._next_rev(account), reset=True)

    def _sync(self, account: GeneratedAccount, rev: str, *, reset: bool) -> Frame:
        stamp = self._begin("#sync")
        account.rev = rev
        root = commit_block(account.did, rev, account.data or b"", self._random.randbytes(64))
        blocks = car(cid_of(root), [(cid_of(root), root)])
        self.oracle.sync(account.did, rev, reset=reset)
        self.emitted += 1
        return self._frame("#sync", {"did": account.did, "rev": rev, "seq": self._seq, "time": stamp, "blocks": blocks})

    # -- commits

    def _next_rev(self, account: GeneratedAccount) -> str:
        """Return a TID a little before the frame's time, above the account's last and above its last purge."""
        us = self._time_us - 1000 - int(self._random.random() * 200_000)
        account.rev_us = max(us, account.rev_us + 1, account.purged_us + 2000 if account.purged_us else 0)
        return tid(account.rev_us, account.clock)

    def _commit(self, account: GeneratedAccount, size: int, spoil: str | None = None) -> Frame:
        """Make a commit of ``size`` operations (at most those left to generate). ``spoil`` makes its first one bad."""
        stamp = self._begin("#commit")
        since, previous_data = account.rev, account.data
        rev = self._next_rev(account)
        blocks: dict[bytes, bytes] = {}
        operations = [self._spoiled(account, spoil, stamp, blocks)] if spoil else []
        touched: set[str] = set()
        for _ in range(size):
            if not self._left():
                break
            done = self._operation(account, rev, stamp, blocks, touched)
            touched.add(done[0].path)
            operations += done
        leaves = [(op.path, op.cid) for op in operations if op.cid is not None]
        data, nodes = (account.data, []) if not size and account.data else self._trees.path(leaves, account.depth)
        assert data is not None
        root = commit_block(account.did, rev, data, self._random.randbytes(64))
        root_cid = cid_of(root)
        sections = [(root_cid, root), *nodes, *blocks.items()]
        if self._random.random() < 0.1:
            sections.reverse()  # nothing says that the commit comes first
        account.rev, account.data = rev, data
        body = {
            "ops": [self._wire(op) for op in operations],
            "rev": rev,
            "seq": self._seq,
            "repo": account.did,
            "time": stamp,
            "blobs": None if self._seq % 50 == 0 else [],
            "since": since,
            "blocks": car(root_cid, sections),
            "commit": link(root_cid),
            "rebase": False,
            "tooBig": False,
        }
        if previous_data is not None and self._seq % 10:
            body["prevData"] = link(previous_data)
        return self._frame("#commit", body)

    def _large_commit(self) -> Frame:
        """Make a commit of many operations, or of large records."""
        size, padding = LARGE_COMMITS[self._large % len(LARGE_COMMITS)]
        self._large += 1
        self._padding = padding // size
        try:
            return self._commit(self._somebody(), size)
        finally:
            self._padding = 0

    @staticmethod
    def _wire(op: Operation) -> dict[str, Any]:
        wire: dict[str, Any] = {"cid": link(op.cid), "path": op.path, "action": op.action}
        if op.previous is not None:
            wire["prev"] = link(op.previous)
        return wire

    def _operation(
        self, account: GeneratedAccount, rev: str, stamp: str, blocks: dict[bytes, bytes], touched: set[str]
    ) -> list[Operation]:
        """Make an operation on the account's repository; rarely two: a key deleted and created again in one commit.

        No commit writes a key twice otherwise (``touched``): its tree can only hold the last.
        """
        x, live, rates = self._random.random(), account.live, self.plan.rates
        if x < 0.095 and live:
            path = next(reversed(live)) if x < 0.035 or x > 0.085 else next(iter(live))
            if path not in touched:
                if x > 0.085:
                    return [self._put(account, path, rev, stamp, blocks)]
                if x < 0.07:
                    again = x < rates.recreation_at_once and self._left() > 1
                    return self._delete(account, path, rev, stamp, blocks, again=again)
        path = ""
        if rates.recreation_from <= x < rates.recreation_to and account.graves:
            path = account.graves.pop(int(self._random.random() * len(account.graves)))
        if not path or path in live or path in touched:
            path = self._new_path(account, touched)
        return [self._put(account, path, rev, stamp, blocks)]

    def _delete(
        self, account: GeneratedAccount, path: str, rev: str, stamp: str, blocks: dict[bytes, bytes], *, again: bool
    ) -> list[Operation]:
        """Delete a record, and create it ``again`` at once or perhaps later."""
        done = [self._done(account, Operation("delete", path, None, account.live.pop(path)), rev, None)]
        if again:
            done.append(self._put(account, path, rev, stamp, blocks))
        else:
            account.graves.append(path)
            if len(account.graves) > _REMEMBERED:
                del account.graves[0]
        return done

    def _new_path(self, account: GeneratedAccount, touched: set[str]) -> str:
        """Choose a key of the network's mix of collections."""
        x = self._random.random()
        collection = LIKE if x < 0.6 else FOLLOW if x < 0.75 else POST if x < 0.88 else REPOST if x < 0.98 else ""
        if not collection:
            collection = self._records.other_collection()
            if collection in SINGLETONS:
                if collection + "/self" not in touched:
                    return collection + "/self"
                collection = LIKE
        account.rkey_us = max(account.rkey_us + 1, account.rev_us - 50)
        return f"{collection}/{tid(account.rkey_us, account.clock)}"

    def _put(self, account: GeneratedAccount, path: str, rev: str, stamp: str, blocks: dict[bytes, bytes]) -> Operation:
        """Create the record of ``path``, or update it where it is there."""
        collection = path.partition("/")[0]
        other = self._accounts[int(self._random.random() * len(self._accounts))].did
        value = self._records.make(collection, other, stamp)
        if self._padding:
            value["padding"] = self._random.randbytes(self._padding // 2).hex()
        block = encode(value)
        cid = cid_of(block)
        blocks[cid] = block
        previous = account.live.pop(path, None)
        account.live[path] = cid
        if len(account.live) > _REMEMBERED:
            oldest = next(iter(account.live))
            if oldest.endswith("/self"):
                account.live[oldest] = account.live.pop(oldest)
            else:
                del account.live[oldest]
        if collection == POST:
            self._records.remember_post(f"at://{account.did}/{path}", cid)
        return self._done(account, Operation("update" if previous else "create", path, cid, previous), rev, value)

    def _done(self, account: GeneratedAccount, op: Operation, rev: str, value: object) -> Operation:
        self.oracle.write(account.did, op.path, op.action, rev, op.cid, value=value)
        self.emitted += 1
        return op

    # -- what is bad on purpose

    def _bad_frames(self, kind: str) -> Iterator[Frame]:
        """Make bad traffic of one kind, and tell the oracle what must come of it."""
        if kind in FRAME_KINDS:
            self._begin("bad")
            data, text = bad_frame(kind, self._seq, iso_time(self._time_us))
            self.oracle.bad(kind, self._seq, None, skipped=1)
            yield Frame(self._seq, self._time_us, data, text)
            return
        account = self._somebody()
        if kind == "too_big":
            yield self._too_big(account)
        else:
            yield self._commit(account, 2, spoil=kind)
            self.oracle.bad(kind, self._seq, account.did, dead=1)

    def _too_big(self, account: GeneratedAccount) -> Frame:
        """Make a commit that does not fit, as the old protocol says so: no operations, no blocks."""
        stamp = self._begin("#commit")
        since, account.rev = account.rev, self._next_rev(account)
        self.oracle.bad("too_big", self._seq, account.did, skipped=1)
        body = {
            "ops": [], "rev": account.rev, "seq": self._seq, "repo": account.did, "time": stamp, "blobs": [],
            "since": since, "blocks": b"", "commit": link(cid_of(account.did.encode())), "rebase": False,
            "tooBig": True,
        }  # fmt: skip
        return self._frame("#commit", body)

    def _spoiled(self, account: GeneratedAccount, kind: str, stamp: str, blocks: dict[bytes, bytes]) -> Operation:
        """Make a create that cannot be applied, for the reason ``kind``."""
        account.rkey_us = max(account.rkey_us + 1, account.rev_us - 50)
        path = f"{POST}/{tid(account.rkey_us, account.clock)}"
        block = encode({"$type": POST, "text": f"@@@@ {self._seq}", "createdAt": stamp})
        make: dict[str, Callable[[bytes], bytes]] = {
            "bad_record": lambda _: b"\xff\x00 no CBOR %d" % self._seq,
            "not_utf8": lambda good: good.replace(b"@@@@", b"\xff\xfe\xfd\xfc"),
            "too_deep": lambda _: b"\xa1\x61a" + b"\x81" * 20_000 + encode(self._seq),
        }
        block = make.get(kind, bytes)(block)
        cid = cid_of(block)
        if kind == "wrong_cid":
            block = block.replace(b"@@@@", b"@@!@")
        if kind != "missing_block":
            blocks[cid] = block
        if kind == "bad_path":
            path = _BAD_PATHS[self._random.randrange(len(_BAD_PATHS))]
        return Operation("create", path, cid, None)
