"""The generated traffic, read back with a plain strict decoder of its own, against the generator's model."""

from collections import Counter
from hashlib import sha256
from typing import Any

import libipld
import pytest

from streams.simulator.oracle import Oracle, State, unnamed_account
from streams.simulator.rates import PLAIN
from streams.simulator.recording import Frame, microseconds, placed
from streams.simulator.repository import cid_text, encode, link, tid
from streams.simulator.traffic import BAD_KINDS, OPERATION_KINDS, BadFrame, Plan, Reset, Traffic
from tests.support import dagcbor
from tests.support.dagcbor import decode, json_form

END_US = 1_790_000_000_000_000


def generate(events: int, oracle: Oracle | None = None, **options: Any) -> tuple[list[Frame], Traffic]:
    traffic = Traffic(Plan(events, end_us=END_US, **options), oracle)
    return list(traffic.frames()), traffic


def read_car(car: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Strict: every block is used up to its last byte, and hashes to its CID. Returns the root and the blocks."""
    blocks: dict[bytes, bytes] = {}

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = car[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value, at

    size, at = varint(0)
    header = libipld.decode_dag_cbor(car[at : at + size])
    assert header["version"] == 1
    assert len(header["roots"]) == 1
    at += size
    while at < len(car):
        size, at = varint(at)
        cid, block = car[at : at + 36], car[at + 36 : at + size]
        assert cid[:4] == b"\x01\x71\x12\x20"
        assert sha256(block).digest() == cid[4:]
        blocks[cid] = block
        at += size
    assert at == len(car)
    return header["roots"][0], blocks


class Reader:
    """Applies frames one by one, as simply as can be."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.accounts: dict[str, Any] = {}
        self.revs: dict[str, str] = {}
        self.kinds: Counter[str] = Counter()
        self.events = 0

    def read(self, frame: Frame) -> None:
        header, body = libipld.decode_dag_cbor_multi(frame.data)
        assert header["op"] == 1
        assert body["seq"] == frame.seq
        assert microseconds(body["time"]) == frame.time_us // 1000 * 1000
        self.kinds[header["t"]] += 1
        getattr(self, header["t"].removeprefix("#"))(body)

    def commit(self, body: dict[str, Any]) -> None:
        root, blocks = read_car(body["blocks"])
        assert root == body["commit"]
        commit = libipld.decode_dag_cbor(blocks[root])
        assert (commit["did"], commit["rev"]) == (body["repo"], body["rev"])
        assert body["since"] is None or body["since"] < body["rev"]
        if body["repo"] in self.revs:
            assert body["since"] == self.revs[body["repo"]]
        self.revs[body["repo"]] = body["rev"]
        assert abs(microseconds(body["time"]) - END_US) < 90_000 * 10**6
        self.events += len(body["ops"])
        in_tree = linked(commit["data"], blocks) if body["ops"] else {}
        records = self.records.setdefault(body["repo"], {})
        for op in body["ops"]:
            self.kinds[op["action"]] += 1
            assert (op["cid"] is None) == (op["action"] == "delete")
            assert ("prev" in op) == (op["action"] != "create")
            if op["cid"] is None:
                records.pop(op["path"], None)
                continue
            assert in_tree[op["path"]] == op["cid"]
            value = json_form(decode(blocks[op["cid"]]))
            assert value["$type"] == op["path"].partition("/")[0]
            records[op["path"]] = {"cid": cid_text(op["cid"]), "rev": body["rev"], "value": value}

    def identity(self, body: dict[str, Any]) -> None:
        self.events += 1
        account = self.accounts.setdefault(body["did"], unnamed_account())
        account["handle"] = body.get("handle", account["handle"])

    def account(self, body: dict[str, Any]) -> None:
        self.events += 1
        account, status = self.accounts.setdefault(body["did"], unnamed_account()), body.get("status")
        hidden = status in ("takendown", "suspended", "deactivated")
        account |= {"active": body["active"], "status": status, "deleted": status == "deleted", "hidden": hidden}
        if status == "deleted":
            self.records.pop(body["did"], None)
            assert self.revs.get(body["did"], "") <= tid(microseconds(body["time"]), 1023)

    def sync(self, body: dict[str, Any]) -> None:
        self.events += 1
        root, blocks = read_car(body["blocks"])
        assert libipld.decode_dag_cbor(blocks[root])["rev"] == body["rev"]
        account = self.accounts.setdefault(body["did"], unnamed_account())
        if self.revs.get(body["did"], "") < body["rev"]:
            account["reset_rev"] = body["rev"]
            self.kinds["reset"] += 1
        self.revs[body["did"]] = body["rev"]

    def agrees_with(self, state: State) -> None:
        assert {did: records for did, records in self.records.items() if records} == state["records"]
        assert self.accounts == state["accounts"]
        assert self.events == state["counts"]["events"]


def linked(root: bytes, blocks: dict[bytes, bytes]) -> dict[str, bytes]:
    """The entries of the tree with their key in full, of the nodes that are there."""
    node = libipld.decode_dag_cbor(blocks[root])
    found = {e["k"].decode(): e["v"] for e in node["e"] if e["p"] == 0}
    for child in (node["l"], *(e["t"] for e in node["e"])):
        if child in blocks:
            found |= linked(child, blocks)
    return found


def test_records_are_encoded_as_another_encoder_does() -> None:
    like_a_cid = b"\x01\x71\x12\x20" + bytes(32)
    record = {"bb": {"$link": cid_text(like_a_cid)}, "a": [{"$bytes": "AXESI" + "A" * 43}, -(2**53) + 1], "ключ": None}
    value = {"bb": dagcbor.link(like_a_cid), "a": [like_a_cid, -(2**53) + 1], "ключ": None}
    assert encode(record) == dagcbor.encode(value)
    assert link(None) is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_frames_say_what_the_oracle_says(seed: int) -> None:
    frames, traffic = generate(6000, seed=seed)
    reader = Reader()
    for frame in frames:
        reader.read(frame)
    assert reader.events == traffic.emitted == 6000
    reader.agrees_with(traffic.oracle.state())
    wanted = {"#commit", "#identity", "#account", "#sync", "create", "update", "delete", "reset"}
    assert wanted <= reader.kinds.keys()
    statuses = {account["status"] for account in reader.accounts.values()}
    assert len(statuses) >= 5


def test_the_traffic_looks_like_the_network() -> None:
    frames, traffic = generate(10_000, seed=3)
    counts = traffic.oracle.state()["counts"]
    mix, total = counts["collections"], sum(counts["operations"].values())
    for collection, share in (("feed.like", 0.60), ("graph.follow", 0.15), ("feed.post", 0.13), ("feed.repost", 0.10)):
        assert mix[f"app.bsky.{collection}"] / total == pytest.approx(share, abs=0.05)
    assert len(mix) >= 15
    assert 3500 < sum(len(frame.data) for frame in frames) / len(frames) < 6500
    seqs = [frame.seq for frame in frames]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] - seqs[0] > len(frames)
    bodies = [libipld.decode_dag_cbor_multi(frame.data)[1] for frame in frames]
    sizes = Counter(len(body["ops"]) for body in bodies if "ops" in body)
    assert sizes[0]
    assert max(sizes) > 8
    assert any(body.get("blobs", 0) is None for body in bodies)
    authors = Counter(body["repo"] for body in bodies if "repo" in body).most_common()
    assert authors[0][1] > 10 * authors[len(authors) // 2][1]


class RecreationOracle(Oracle):
    """An oracle that also counts deleted keys that are created again."""

    def __init__(self) -> None:
        super().__init__()
        self.recreated = 0
        self._deleted: set[tuple[str, str]] = set()

    def write(self, did: str, path: str, action: str, rev: str, cid: bytes | None, *, value: object) -> None:
        super().write(did, path, action, rev, cid, value=value)
        if cid is None:
            self._deleted.add((did, path))
        elif (did, path) in self._deleted:
            self._deleted.remove((did, path))
            self.recreated += 1


def test_plain_traffic_has_what_is_rare_as_seldom_as_the_network() -> None:
    events, oracle, reader = 30_000, RecreationOracle(), Reader()
    frames, _ = generate(events, oracle, rates=PLAIN)
    deletions = 0
    for frame in frames:
        reader.read(frame)
        header, body = libipld.decode_dag_cbor_multi(frame.data)
        deletions += header["t"] == "#account" and body.get("status") == "deleted"
    reader.agrees_with(oracle.state())
    assert reader.kinds["#sync"] < events / 1000
    assert deletions < events / 1000
    assert oracle.recreated < events / 1000
    assert oracle.events["account"] > 0
    assert oracle.operations["delete"] > events / 100


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert generate(500, seed=7)[0] == generate(500, seed=7)[0]
    assert generate(500, seed=7)[0] != generate(500, seed=8)[0]


def test_times_are_spread_over_the_days_and_then_live() -> None:
    frames, _ = generate(2000, days_span=2.0, live_events=500, live_rate=100.0)
    assert END_US - frames[0].time_us == pytest.approx(2 * 86_400e6, rel=0.01)
    assert frames[-1].time_us == END_US + 5_000_000
    times = [frame.time_us for frame in frames]
    assert times == sorted(times)


@pytest.mark.parametrize("events", [1, 2, 3, 99, 1000])
def test_the_number_of_events_is_exact(events: int) -> None:
    assert generate(events)[1].oracle.state()["counts"]["events"] == events


def test_an_oracle_of_a_window_knows_only_the_window() -> None:
    middle = generate(3000)[0][1200].seq
    frames, traffic = generate(3000, Oracle(from_seq=middle))
    state, reader = traffic.oracle.state(), Reader()
    for frame in frames:
        if frame.seq >= middle:
            reader.read(frame)
    assert state["first_seq"] == middle
    assert {did: records for did, records in reader.records.items() if records} == state["records"]
    assert reader.events == state["counts"]["events"] < 3000


def test_a_reset_begins_the_sequence_again_with_newer_times() -> None:
    frames, _ = generate(400, resets=(Reset(200),))
    falls = [i for i in range(1, len(frames)) if frames[i].seq < frames[i - 1].seq]
    assert len(falls) == 1
    assert frames[falls[0]].seq < 10
    assert frames[falls[0]].time_us >= frames[falls[0] - 1].time_us


def survives(frame: Frame) -> tuple[int, int]:
    """Operations of a commit that a strict reader can apply, and those that it cannot."""
    body = libipld.decode_dag_cbor_multi(frame.data)[1]
    good = 0
    for op in body["ops"]:
        if op["cid"] is None:
            good += 1
            continue
        try:
            block = next(b for b in every_block(body["blocks"]) if sha256(b).digest() == op["cid"][4:])
            libipld.decode_dag_cbor(block)
            collection, _, rkey = op["path"].partition("/")
            good += bool(collection and rkey and " " not in collection)
        except (StopIteration, ValueError, RecursionError):
            pass
    return good, len(body["ops"]) - good


def every_block(car: bytes) -> list[bytes]:
    """The blocks of a CAR, hashes unchecked."""
    out, at = [], 59
    while at < len(car):
        size = shift = 0
        while True:
            byte = car[at]
            size, shift, at = size | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        out.append(car[at + 36 : at + size])
        at += size
    return out


@pytest.mark.parametrize("kind", OPERATION_KINDS)
def test_one_bad_operation_leaves_the_others_good(kind: str) -> None:
    frames, traffic = generate(300, bad=(BadFrame(kind, 150),))
    state = traffic.oracle.state()
    [bad] = state["bad_frames"]
    good, broken = survives(next(frame for frame in frames if frame.seq == bad["seq"]))
    assert (good >= 1, broken) == (True, 1) or kind == "too_deep"
    assert (bad["dead"], bad["skipped"], state["expected_dead"]) == (1, 0, 1)
    assert state["counts"]["events"] == 300


@pytest.mark.parametrize("kind", [kind for kind in BAD_KINDS if kind not in OPERATION_KINDS])
def test_a_frame_that_means_nothing_is_counted_and_changes_nothing(kind: str) -> None:
    frames, traffic = generate(300, bad=(BadFrame(kind, 100), BadFrame(kind, 200)))
    state, reader = traffic.oracle.state(), Reader()
    bad = {entry["seq"] for entry in state["bad_frames"]}
    assert len(bad) == state["expected_skipped"] == 2
    for frame in frames:
        if frame.seq not in bad:
            body = libipld.decode_dag_cbor_multi(frame.data)[1]
            if "repo" in body and body["repo"] in {entry["did"] for entry in state["bad_frames"]}:
                reader.revs.pop(body["repo"], None)  # its rev moved on in the lost frame
            reader.read(frame)
    assert {did: records for did, records in reader.records.items() if records} == state["records"]
    assert state["counts"]["events"] == 300


def test_raw_frames_find_their_place() -> None:
    frames, _ = generate(50)
    raw = [frame.data for frame in frames[:3]] + [b"\xff", frames[3].data]
    found = list(placed(raw))
    assert [f.seq for f in found] == [frames[0].seq, frames[1].seq, frames[2].seq, frames[2].seq, frames[3].seq]
    assert [f.data for f in found] == raw
