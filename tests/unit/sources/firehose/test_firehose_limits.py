"""The search for a seq, the plan and the cutter at their exact limits, and the way that was gone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from streams.messages import NOT_KEPT, StreamPosition, Watermark
from streams.sources.firehose.frame_cutter import FrameCutter
from streams.sources.firehose.plan import (
    DAY_US,
    SHORTFALL,
    Request,
    Window,
    blind_gap,
    decide,
    not_shown,
    passed_over,
    reset_gap,
    sequence_of,
)
from streams.sources.firehose.seek import MAX_PROBES, TOLERANCE, WITNESSES, Search, Sighting, believed_time
from tests.unit.sources.firehose.test_frame_cutter import frame

SECOND = 1_000_000
NOW = 1_800_000_000_000_000
RELAY = "a.example"
LAST = Watermark(relay=RELAY, run=5, topic_id="t", seq=70, time=NOW - 9)

# -- the search


def test_the_numbers_of_a_search() -> None:
    """Those after the first frame of a probe say if its time is wrong: four wrong clocks of nine do no harm."""
    assert (WITNESSES, TOLERANCE, MAX_PROBES) == (9, 30 * SECOND, 80)


def test_a_search_is_over_where_the_oldest_is_near_enough() -> None:
    for target, over in ((TOLERANCE, True), (TOLERANCE + 1, False), (-1, True)):
        search = Search(Sighting(100, 0), Sighting(10_000, 10**12), target)
        assert (search.next_cursor() is None) is over


def test_a_search_is_over_where_nothing_is_between() -> None:
    assert Search(Sighting(100, 0), Sighting(100, 10**12), 10**11).next_cursor() is None
    assert Search(Sighting(100, 0), Sighting(101, 10**12), 10**11).next_cursor() == 100


def test_without_a_head_the_steps_grow_fourfold() -> None:
    search = Search(Sighting(1000, 0), None, 10**12)
    cursors = []
    for _ in range(4):
        cursor = search.next_cursor()
        assert cursor is not None
        cursors.append(cursor)
        search.tell(Sighting(cursor + 5, 1))
    assert cursors == [2024, 2029 + 4096, 6130 + 16_384, 22_519 + 65_536]


def test_looks_are_in_proportion_twice_and_then_in_the_middle() -> None:
    """Of 90,000 seqs in 90,000 s the time asked for is at a ninth: 15 s earlier is aimed at."""
    search = Search(Sighting(10_000, 0), Sighting(100_000, 90_000 * SECOND), 10_000 * SECOND)
    assert search.next_cursor() == 10_000 + 10_000 - 15
    search.tell(Sighting(20_000, 10_001 * SECOND))
    # Cursors from 10,000 up to and without 19,985, which is of the time 10,001 s.
    assert search.next_cursor() == 10_000 + int(9985 * (10_000 - 15) / 10_001)
    search.tell(Sighting(20_000, 10_001 * SECOND))
    high = 10_000 + int(9985 * (10_000 - 15) / 10_001)
    assert search.next_cursor() == (10_000 + high) // 2


@pytest.mark.parametrize(("head_time", "cursor"), [(None, 600), (-5, 600), (0, 600), (1, 1100)])
def test_without_times_that_grow_it_looks_in_the_middle(head_time: int | None, cursor: int) -> None:
    search = Search(Sighting(100, 0), Sighting(1101, head_time), 10_000 * SECOND)
    assert search.next_cursor() == cursor


def test_it_never_looks_at_the_head_itself_nor_before_the_oldest() -> None:
    late = Search(Sighting(100, 0), Sighting(200, 100 * SECOND), 10**6 * SECOND)
    assert late.next_cursor() == 199
    early = Search(Sighting(100, 0), Sighting(10**9, 10**15), TOLERANCE + 1)
    assert early.next_cursor() == 114


@given(st.integers(0, 1 << 53), st.integers(1, 1 << 40), st.integers(-1, 1 << 60), st.integers(-(1 << 60), 1 << 60))
def test_it_looks_only_where_something_may_be_found(oldest: int, width: int, head_time: int, target: int) -> None:
    cursor = Search(Sighting(oldest, 0), Sighting(oldest + width, head_time), target).next_cursor()
    assert cursor is None or oldest <= cursor < oldest + width


def test_the_proportion_is_of_the_times_between() -> None:
    begin = 1_000_000 * SECOND
    search = Search(Sighting(0, begin), Sighting(1000, begin + 1000 * SECOND), begin + 515 * SECOND)
    assert search.next_cursor() == 500


def test_a_frame_of_the_very_time_is_an_answer() -> None:
    search = Search(Sighting(100, 0), Sighting(1101, None), 1000 * SECOND)
    assert search.next_cursor() == 600
    search.tell(Sighting(601, 1000 * SECOND))
    assert search.best == Sighting(601, 1000 * SECOND)


def test_a_search_narrows_on_both_sides() -> None:
    search = Search(Sighting(100, 0), Sighting(1101, None), 1000 * SECOND)
    assert search.next_cursor() == 600
    search.tell(None)
    assert search.next_cursor() == 350
    search.tell(Sighting(360, 100 * SECOND))
    assert search.best == Sighting(360, 100 * SECOND)
    assert search.next_cursor() == 480
    search.tell(Sighting(480, 200 * SECOND))  # a relay that gives the frame of the cursor itself
    assert search.best == Sighting(480, 200 * SECOND)
    search.tell(Sighting(480, 300 * SECOND))
    assert search.best.time == 200 * SECOND, "the same frame again says nothing new"


def test_what_was_found_before_the_cursor_moves_the_search_behind_it() -> None:
    search = Search(Sighting(100, 0), Sighting(1101, None), 1000 * SECOND)
    assert search.next_cursor() == 600
    search.tell(Sighting(550, 5))
    assert search.next_cursor() == (601 + 1101) // 2


@pytest.mark.parametrize(("seen", "low"), [(550, 601), (600, 601), (601, 601), (602, 602), (611, 611)])
def test_the_search_goes_on_behind_the_cursor_and_not_below_what_was_seen(seen: int, low: int) -> None:
    """A relay may give the frame at the cursor itself: to look there again would say nothing new."""
    search = Search(Sighting(100, 0), Sighting(1101, None), 1000 * SECOND)
    assert search.next_cursor() == 600
    search.tell(Sighting(seen, 5))
    assert search._low == low


@pytest.mark.parametrize(("middle", "over"), [(None, False), (0, False), (1, True)])
def test_a_look_around_the_target_ends_the_search(middle: int | None, over: bool) -> None:
    target = 5000 * SECOND
    search = Search(Sighting(100, 0), Sighting(10_000, 10_000 * SECOND), target)
    cursor = search.next_cursor()
    assert cursor is not None
    search.tell(Sighting(cursor + 1, target - 900 * SECOND), middle=None if middle is None else target + middle)
    assert (search.next_cursor() is None) is over


def test_a_search_ends_after_so_many_looks() -> None:
    search, looks = Search(Sighting(0, 0), None, 10**15), 0
    while (cursor := search.next_cursor()) is not None:
        looks += 1
        search.tell(Sighting(cursor, 1))
    assert looks == MAX_PROBES == 80


def test_a_refused_cursor_is_the_lowest_that_is_not_looked_at() -> None:
    search = Search(Sighting(100, 0), Sighting(1101, None), 10_000 * SECOND)
    assert search.next_cursor() == 600
    search.refuse()
    assert search._low == 601
    assert search.next_cursor() == (601 + 1101) // 2


@pytest.mark.parametrize(
    ("times", "believed"),
    [
        ([10**12, 0], 10**12),  # of two nobody can say which is wrong
        ([10**12, 0, 1], 1),
        ([300_000_000, 0, 0], 300_000_000),
        ([300_000_001, 0, 0], 0),
        ([-300_000_000, 0, 0], -300_000_000),
        ([-300_000_001, 0, 0], 0),
        ([300_000_090, 0, 0, 10, 10], 300_000_090),  # the middle is 10, and 10 is usual among them
        ([300_000_091, 0, 0, 10, 10], 10),
        ([None, 3, 1, 2], 2),
        ([None, 4, 1, 2, 3], 3),
    ],
)
def test_which_time_is_believed(times: Sequence[int | None], believed: int) -> None:
    assert believed_time(times) == believed


# -- the plan


def test_no_day_is_now_and_none_below_is_everything() -> None:
    assert decide(Request(0, False, None, NOW), None, RELAY).target == NOW
    assert decide(Request(-1, False, None, NOW), None, RELAY).target is None
    assert decide(Request(1, False, None, DAY_US), None, RELAY).target == 0
    assert decide(Request(2, False, None, DAY_US), None, RELAY).target == 0
    assert decide(Request(2, False, 0, NOW), None, RELAY).target == 0


@pytest.mark.parametrize(("later", "is_gap"), [(SHORTFALL, False), (SHORTFALL + 1, True)])
def test_a_shortfall_of_a_minute_is_no_gap(later: int, is_gap: bool) -> None:
    window = Window(Sighting(9, NOW + later), Sighting(90, NOW + 10**12))
    gap = not_shown(window, NOW, RELAY, 6)
    assert (gap is not None) is is_gap
    if gap is not None:
        assert (gap.from_seq, gap.to_seq, gap.from_time, gap.to_time, gap.reason) == (
            None, 8, NOW, NOW + later, NOT_KEPT,
        )  # fmt: skip


def test_an_oldest_without_a_time_says_nothing_of_a_shortfall() -> None:
    assert not_shown(Window(Sighting(9, None), None), NOW, RELAY, 6) is None
    known = not_shown(Window(Sighting(9, None), None, unknown="why"), None, RELAY, 6)
    assert known is not None
    assert (known.from_time, known.to_time, known.reason) == (None, None, "why")
    assert not_shown(Window(Sighting(9, NOW), None, unknown="why"), NOW, RELAY, 6) is None
    later = not_shown(Window(None, Sighting(90, NOW)), NOW + 5, RELAY, 6)
    assert later is not None
    assert (later.to_seq, later.to_time) == (90, NOW + 5)


def test_the_gaps_of_a_reset_and_of_a_relay_that_shows_nothing() -> None:
    gap = reset_gap(RELAY, 6, StreamPosition(seq=70, time=NOW), NOW + 5, "why")
    assert (gap.run, gap.from_seq, gap.to_seq, gap.from_time, gap.to_time) == (6, 71, None, NOW, NOW + 5)
    assert gap.reason == "the relay's sequence was reset: why"
    gap = blind_gap(RELAY, 6, NOW - 5, NOW)
    assert (gap.from_seq, gap.to_seq, gap.from_time, gap.to_time) == (None, None, NOW - 5, NOW)


def test_a_sequence_is_kept_up_to_its_last_seq_and_time() -> None:
    held, head = structs.replace(LAST, sequence=3), Sighting(200, NOW)

    def kept(first: Sighting, head: Sighting | None = head) -> bool:
        return sequence_of(held, RELAY, 6, first, head) == 3

    assert kept(Sighting(1, None), Sighting(70, NOW))
    assert not kept(Sighting(1, None), Sighting(69, NOW))
    assert kept(Sighting(70, NOW - 9))
    assert not kept(Sighting(70, NOW - 8))
    assert kept(Sighting(71, NOW - 8))
    assert sequence_of(structs.replace(held, time=None), RELAY, 6, Sighting(70, NOW), head) == 3
    assert sequence_of(structs.replace(held, sequence=0), RELAY, 6, Sighting(71, NOW), head) == 0


def test_what_is_passed_over_begins_behind_the_last_and_ends_before_the_first() -> None:
    def over(first: Sighting, relay: str = RELAY, target: int | None = None) -> tuple[object, ...] | None:
        gap = passed_over(LAST, relay, 6, first, target)
        return None if gap is None else (gap.from_seq, gap.to_seq, gap.from_time, gap.to_time)

    assert over(Sighting(71, NOW)) is None
    assert over(Sighting(72, NOW)) == (71, 71, NOW - 9, NOW)
    assert over(Sighting(72, None)) == (71, 71, NOW - 9, None)
    assert over(Sighting(1, NOW - 9), "b.example") is None
    assert over(Sighting(1, NOW - 8), "b.example") == (None, None, NOW - 9, NOW - 8)
    assert over(Sighting(1, None), "b.example") is None
    assert over(Sighting(90, NOW), target=NOW - 9) == (71, 89, NOW - 9, NOW)
    assert over(Sighting(90, NOW), target=NOW - 8) == (71, 89, NOW - 9, NOW - 8)
    assert over(Sighting(90, None), target=NOW - 8) == (71, 89, NOW - 9, NOW - 8)
    asked = passed_over(LAST, RELAY, 6, Sighting(90, NOW), NOW - 8)
    told = passed_over(LAST, RELAY, 6, Sighting(90, NOW), NOW - 9)
    assert asked is not None and told is not None
    assert ("--restart" in asked.reason, "--restart" in told.reason) == (True, False)
    timeless = passed_over(structs.replace(LAST, time=None), RELAY, 6, Sighting(90, NOW), NOW - 99)
    assert timeless is not None
    assert (timeless.from_time, timeless.to_time, "--restart" in timeless.reason) == (None, NOW - 99, True)
    assert passed_over(structs.replace(LAST, time=None), "b.example", 6, Sighting(90, NOW), None) is None


# -- the cutter


class Cut:
    """A cutter behind the handshake, what it gave as messages, and what it left to websockets."""

    def __init__(self, max_size: int = 70_000) -> None:
        self.messages: list[bytes] = []
        self.rest: list[bytes] = []
        self.is_open = True
        self.cutter = FrameCutter(self.messages.append, self._rest, max_size=max_size)
        self.cutter.feed(b"HTTP/1.1 101\r\n\r\n")
        assert self.rest.pop() == b"HTTP/1.1 101\r\n\r\n"

    def _rest(self, data: bytes) -> bool:
        self.rest.append(data)
        return self.is_open

    def feed(self, *reads: bytes) -> Cut:
        for read in reads:
            self.cutter.feed(read)
        return self


@pytest.mark.parametrize("length", [126, 127, 255, 256, 65_535])
@pytest.mark.parametrize("behind", [b"", b"\x82", b"\x82\x7e", b"\x82\x7e\x01", b"\x82\x7e\x01\x00", frame(0x82, b"x")])
def test_usual_messages_take_the_short_way(length: int, behind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The long way gives the same: that it was not gone is what makes a message cost a slice."""
    whole: list[bytes] = []
    one = FrameCutter._whole
    monkeypatch.setattr(FrameCutter, "_whole", lambda self, head, data: (whole.append(data), one(self, head, data))[1])
    cut = Cut().feed(frame(0x82, b"a" * length) * 3 + behind)
    assert [len(message) for message in cut.messages[:3]] == [length] * 3
    assert whole == ([b"x"] if behind[2:] == b"x" else [])
    assert cut.rest == []


def test_a_message_of_the_largest_size_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameCutter, "_whole", lambda *_: pytest.fail("the long way"))
    assert Cut(max_size=200).feed(frame(0x82, b"a" * 200)).messages == [b"a" * 200]


def test_a_message_that_ends_with_the_read_is_taken_at_once() -> None:
    data = frame(0x82, b"a" * 200)
    assert Cut().feed(data).messages == [b"a" * 200]
    assert Cut().feed(data[:-1]).messages == []
    assert Cut().feed(data[:-1], data[-1:]).messages == [b"a" * 200]


def test_what_is_stopped_takes_no_message_more() -> None:
    cut = Cut()
    taken: list[bytes] = []

    def stop(data: bytes) -> None:
        taken.append(data)
        cut.cutter.stopped = True

    cut.cutter._on_message = stop
    cut.feed(frame(0x82, b"a" * 200) * 3, frame(0x82, b"b") * 3)
    assert taken == [b"a" * 200]


@pytest.mark.parametrize(
    ("first", "between"), [(0x02, True), (0x01, True), (0x82, False), (0x89, False), (0x88, False)]
)
def test_within_a_fragmented_message_all_is_left_to_websockets(first: int, between: bool) -> None:
    cut = Cut().feed(frame(first, b"part"), frame(0x82, b"b" * 200), frame(0x82, b"b"))
    # A whole message in between is a fault, after which websockets closes: for us it is the last fragment.
    assert cut.messages == ([b"b"] if between else [b"part"] * (first == 0x82) + [b"b" * 200, b"b"])


def test_a_ping_does_not_end_a_fragmented_message_and_its_last_part_does() -> None:
    cut = Cut().feed(frame(0x02, b"1"), frame(0x89, b"p"), frame(0x82, b"x"), frame(0x00, b"2"), frame(0x82, b"y"))
    assert cut.messages == []
    cut.feed(frame(0x80, b"3"), frame(0x82, b"z"))
    assert cut.messages == [b"z"]


@pytest.mark.parametrize("split", [0, 1, 2, 3, 9])
@pytest.mark.parametrize(("payload", "mask", "taken"), [(66_000, 0, True), (66_001, 0, False), (66_000, 0x80, False)])
def test_a_frame_too_large_or_masked_is_left_to_websockets_with_all_that_follows(
    split: int, payload: int, mask: int, taken: bool
) -> None:
    data = frame(0x82, b"a" * payload, form=8, mask=mask)
    cut = Cut(max_size=66_000).feed(data[:split], data[split:] + frame(0x82, b"b"), frame(0x82, b"c"))
    if taken:
        assert (cut.messages, cut.rest) == ([b"a" * 66_000, b"b", b"c"], [])
    else:
        assert cut.messages == []
        assert b"".join(cut.rest) == data + frame(0x82, b"b") + frame(0x82, b"c")


def test_small_frames_too_large_or_masked_are_left_to_websockets() -> None:
    for data in (frame(0x82, b"abc", mask=0x80), frame(0x82, b"abcd")):
        for split in range(2):
            cut = Cut(max_size=3).feed(data[:split], data[split:])
            assert (cut.messages, b"".join(cut.rest)) == ([], data)


@pytest.mark.parametrize("form", [0, 2, 8])
@pytest.mark.parametrize("length", [0, 1, 125])
def test_every_form_of_a_length_at_every_cut(form: int, length: int) -> None:
    data = frame(0x82, b"a" * length, form=form)
    for cut_at in range(1, len(data)):
        cut = Cut().feed(data[:cut_at], data[cut_at:], frame(0x82, b"next"))
        assert (cut.messages, cut.rest) == ([b"a" * length, b"next"], [])
        other = Cut().feed(frame(0x89, b"p")[:1], frame(0x89, b"p")[1:] + data[:cut_at], data[cut_at:])
        assert (other.messages, other.rest) == ([b"a" * length], [frame(0x89, b"p")])


def test_the_end_of_the_headers_is_found_wherever_a_read_ends() -> None:
    answer = b"HTTP/1.1 101\r\nA: b\r\n\r\n"
    for size in (1, 2, 3, 4, 5):
        messages: list[bytes] = []
        rest: list[bytes] = []
        cutter = FrameCutter(messages.append, lambda data, rest=rest: not rest.append(data), max_size=300)  # type: ignore[misc]
        data = answer + frame(0x82, b"x")
        for at in range(0, len(data), size):
            cutter.feed(data[at : at + size])
        assert (messages, b"".join(rest)) == ([b"x"], answer)


def test_the_kept_end_of_the_headers_is_no_longer_than_need_be() -> None:
    cutter = FrameCutter(lambda _: None, lambda _: True, max_size=300)
    cutter.feed(b"HTTP/1.1 101\r\nA: b")
    assert cutter._tail == b": b"


def test_a_refusal_and_what_follows_a_close_are_left_to_websockets() -> None:
    rest: list[bytes] = []
    cutter = FrameCutter(lambda _: pytest.fail("a message"), lambda data: bool(rest.append(data)), max_size=300)
    cutter.feed(b"HTTP/1.1 403\r\n\r\ntext")
    cutter.feed(frame(0x82, b"x"))
    assert rest == [b"HTTP/1.1 403\r\n\r\n", b"text", frame(0x82, b"x")]
    cut = Cut()
    cut.is_open = False
    close = frame(0x88, b"\x03\xe8")
    cut.feed(close + frame(0x82, b"x" * 200), frame(0x82, b"x"))
    assert (cut.messages, b"".join(cut.rest)) == ([], close + frame(0x82, b"x" * 200) + frame(0x82, b"x"))
