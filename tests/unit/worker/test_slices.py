"""Slices form a chain: nothing skipped, nothing doubled, nothing of an assignment that is over."""

from __future__ import annotations

from dataclasses import dataclass

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from streams.worker.slices import Break, Chain, Slice, SlicedRecord, cut_events, round_robin, split


@dataclass
class Message:
    offset: int
    key: bytes | None = b"did:web:a"
    value: bytes | None = b"{}"
    timestamp: int = 0
    timestamp_type: int = 0


def run(start: int, end: int) -> list[SlicedRecord]:
    return [Message(offset) for offset in range(start, end)]


P0, P1 = TP("t", 0), TP("t", 1)


def chain_at(offset: int, tp: TP = P0) -> Chain:
    chain = Chain()
    chain.void([tp])
    chain.arm(tp, offset)
    return chain


@given(sizes=st.lists(st.integers(0, 50), max_size=60), records=st.integers(1, 10), limit=st.integers(1, 120))
def test_split_keeps_every_record_in_order_within_the_limits(sizes: list[int], records: int, limit: int) -> None:
    whole: list[SlicedRecord] = [Message(i, value=bytes(size)) for i, size in enumerate(sizes)]
    pieces = split(whole, records, limit)
    assert [m for piece in pieces for m in piece] == whole
    for piece in pieces:
        assert 0 < len(piece) <= records
        # Only its last record may bring a piece to the limit.
        assert sum(len(m.value or b"") for m in piece[:-1]) < limit


def test_a_record_larger_than_a_slice_is_a_slice() -> None:
    whole: list[SlicedRecord] = [Message(0), Message(1, value=bytes(8 << 20)), Message(2)]
    assert [len(piece) for piece in split(whole, 1000, 1 << 20)] == [2, 1]


def test_round_robin_takes_the_first_of_each_then_the_second() -> None:
    a, b = [run(0, 1), run(1, 2)], [run(5, 6)]
    assert [(tp, piece[0].offset) for tp, piece in round_robin([(P0, a), (P1, b)])] == [(P0, 0), (P1, 5), (P0, 1)]


def test_slices_follow_on_from_each_other() -> None:
    chain = chain_at(7)
    first, second = chain.link(P0, run(7, 9)), chain.link(P0, run(9, 12))
    assert isinstance(first, Slice)
    assert isinstance(second, Slice)
    assert (first.base, first.next_offset, second.base, second.next_offset) == (7, 9, 9, 12)


def test_records_of_a_partition_that_is_not_armed_are_stale() -> None:
    chain = Chain()
    assert chain.link(P0, run(0, 3)) == Break("stale")
    chain.void([P0])
    assert chain.link(P0, run(0, 3)) == Break("stale")


def test_records_from_before_a_seek_are_fetched_again_and_the_chain_goes_on() -> None:
    chain = chain_at(10)
    assert chain.link(P0, run(4, 6)) == Break("refetch", 10, 4)
    assert isinstance(chain.link(P0, run(10, 12)), Slice)
    # Forgotten: the same stale answer is again only looked at a second time.
    assert chain.link(P0, run(4, 6)) == Break("refetch", 12, 4)


def test_the_same_answer_twice_is_the_truth() -> None:
    chain = chain_at(10)
    assert chain.link(P0, run(15, 17)) == Break("refetch", 10, 15)
    assert chain.link(P0, run(15, 17)) == Break("hole", 10, 15)
    bridged = chain.bridge(P0, run(15, 17))
    assert isinstance(bridged, Slice)
    assert (bridged.base, bridged.next_offset) == (10, 17)
    assert chain.link(P0, run(3, 4)) == Break("refetch", 17, 3)
    assert chain.link(P0, run(3, 4)) == Break("rewound", 17, 3)


def test_voiding_makes_slices_of_that_partition_invalid_and_no_others() -> None:
    chain = chain_at(0)
    chain.void([P1])
    chain.arm(P1, 0)
    one, other = chain.link(P0, run(0, 2)), chain.link(P1, run(0, 2))
    assert isinstance(one, Slice)
    assert isinstance(other, Slice)
    chain.void([P0])
    assert not chain.is_current(one)
    assert chain.is_current(other)
    chain.arm(P0, 0)
    assert not chain.is_current(one)


class Log:
    """A partition that answers fetches from wherever it was sought, and sometimes late, from before a seek."""

    def __init__(self, end: int, holes: set[int]) -> None:
        self.offsets = [o for o in range(end) if o not in holes]
        self.at = 0

    def fetch(self, count: int) -> list[SlicedRecord]:
        following: list[SlicedRecord] = [Message(o) for o in self.offsets if o >= self.at]
        found = following[:count]
        if found:
            self.at = found[-1].offset + 1
        return found


@given(
    end=st.integers(1, 60),
    holes=st.sets(st.integers(0, 59)),
    steps=st.lists(st.tuples(st.sampled_from(["fetch", "stale", "rebalance"]), st.integers(1, 9)), max_size=60),
)
def test_whatever_is_delivered_is_each_offset_once_in_order(
    end: int, holes: set[int], steps: list[tuple[str, int]]
) -> None:
    log, chain = Log(end, holes), chain_at(0)
    durable = 0
    delivered: list[int] = []
    late: list[SlicedRecord] = []
    for step, count in [*steps, *[("fetch", 9)] * 30]:
        if step == "rebalance":  # the database stands at what was delivered: seek there
            chain.void([P0])
            chain.arm(P0, durable)
            log.at = durable
            continue
        records = late if step == "stale" and late else log.fetch(count)
        if not records:
            continue
        late = records
        linked = chain.link(P0, records)
        if isinstance(linked, Break) and linked.kind == "hole":
            linked = chain.bridge(P0, records)
        if isinstance(linked, Break):
            log.at = durable  # refetch, or a late answer twice in a row that looked like another log
            if linked.kind == "rewound":
                return
            continue
        assert linked.base == durable
        delivered += [record.offset for record in linked.records]
        durable = linked.next_offset
    if not any(step == "stale" for step, _ in steps):
        assert delivered == log.offsets
    assert delivered == sorted(set(delivered))


@given(kinds=st.lists(st.booleans(), max_size=40), start=st.integers(0, 40), limit=st.integers(1, 8))
def test_a_cut_holds_at_most_so_many_events_and_the_control_messages_behind_them(
    kinds: list[bool], start: int, limit: int
) -> None:
    records: list[SlicedRecord] = [Message(i, key=b"d" if event else None) for i, event in enumerate(kinds)]
    start = min(start, len(records))
    end, events = cut_events(records, start, limit)
    held = [record for record in records[start:end] if record.key is not None]
    assert len(held) == events <= limit
    if end < len(records):
        assert events == limit
        assert records[end].key is not None
