"""The order of frames and what they claim: each fault does what it says, and to nothing else."""

from __future__ import annotations

from collections import Counter

import cbor2
import libipld
import pytest

from streams.errors import SettingsError
from streams.simulator.arrangement import TAIL, arranged
from streams.simulator.dialects import as_jetstream, as_labels, author, is_commit, loosened, sent_at, with_values
from streams.simulator.faults import CLAIM_KINDS, ORDER_KINDS, parse_fault
from streams.simulator.recording import Frame, frame_parts, microseconds, placed
from streams.simulator.traffic import Plan, Reset, Traffic

END_US = 1_790_000_000_000_000
FRAMES = list(Traffic(Plan(600, seed=7, end_us=END_US)).frames())


def served(*faults: str, frames: list[Frame] = FRAMES) -> list[Frame]:
    return arranged(frames, [parse_fault(fault) for fault in faults])


def body(frame: Frame) -> dict[str, object]:
    parts = frame_parts(frame.data)
    assert parts is not None
    return parts[1]


@pytest.mark.parametrize(
    ("fault", "places"),
    [
        ("swap:after=10", [11, 10]),
        ("overtake:after=10,count=1,by=3", [13, 10, 11, 12]),
        ("overtake:after=10,count=3,by=2", [12, 13, 14, 10, 11]),
        ("overtake:after=10,count=2,by=5", [15, 16, 10, 11, 12, 13, 14]),
        ("repeat:after=10,count=1", [10, 11, 10]),
        ("repeat:after=10,count=4", [10, 11, 12, 13, 14, 10]),
        ("swap:after=0", [1, 0]),
    ],
)
def test_the_order_of_the_frames_is_another(fault: str, places: list[int]) -> None:
    begin = min(places)
    assert served(fault) == FRAMES[:begin] + [FRAMES[place] for place in places] + FRAMES[max(places) + 1 :]


@pytest.mark.parametrize("kind", [*ORDER_KINDS, *CLAIM_KINDS])
def test_nothing_is_left_out_and_the_end_is_left_alone(kind: str) -> None:
    told: list[str] = []
    stream = arranged(FRAMES, [parse_fault(f"{kind}:scatter=5,by=7,count=3")], told.append)
    assert told == [kind] * 5
    assert stream != FRAMES
    assert stream[-TAIL:] == FRAMES[-TAIL:]

    def events(frames: list[Frame]) -> set[tuple[object, ...]]:
        return {(author(f.data), (told := body(f)).get("rev"), told.get("handle"), told.get("active")) for f in frames}

    assert events(stream) == events(FRAMES)


@pytest.mark.parametrize(("kind", "moved"), [("ahead", 5000), ("behind", -5000)])
def test_a_lone_commit_has_a_seq_that_is_far_off(kind: str, moved: int) -> None:
    stream = served(f"{kind}:scatter=4,jump=5000")
    changed = [(old, new) for old, new in zip(FRAMES, stream, strict=True) if old != new]
    assert len(changed) == 4
    for old, new in changed:
        assert is_commit(new.data)
        assert new.seq == body(new)["seq"] == old.seq + moved
        assert body(new) == body(old) | {"seq": new.seq}


def test_a_seq_stays_one_that_can_be() -> None:
    assert [f.seq for f in served("behind:after=20,jump=9000000000000")].count(1) == 1
    assert max(f.seq for f in served("ahead:after=20,jump=90000000000000000000")) == 2**53 - 1


def test_two_events_under_one_seq() -> None:
    stream = served("same_seq:scatter=3")
    twice = [seq for seq, count in Counter(f.seq for f in stream).items() if count == 2]
    assert len(twice) == 3
    assert [f.seq for f in stream] == sorted(f.seq for f in stream)


@pytest.mark.parametrize(("kind", "sign"), [("clock_ahead", 1), ("clock_behind", -1)])
def test_a_burst_of_a_wrong_clock(kind: str, sign: int) -> None:
    stream = served(f"{kind}:after=50,count=20,seconds=86400")
    wrong = [
        i for i, f in enumerate(stream) if abs(microseconds(str(body(f)["time"])) - f.time_us - sign * 86_400e6) < 1000
    ]
    assert wrong == list(range(50, 70))
    assert [f.seq for f in stream] == [f.seq for f in FRAMES]


def test_one_pds_of_many_has_a_wrong_clock_for_good() -> None:
    stream = served("clock_ahead:pds=4")
    wrong = {author(f.data) for old, f in zip(FRAMES, stream, strict=True) if f != old}
    right = {author(f.data) for old, f in zip(FRAMES, stream, strict=True) if f == old}
    assert wrong and right and not wrong & right


def test_a_wrong_clock_that_is_as_wrong_as_can_be() -> None:
    assert str(body(served("clock_behind:after=5,count=1,seconds=1e12")[5])["time"]) == "1970-01-01T00:00:00.000Z"
    assert str(body(served("clock_ahead:after=5,count=1,seconds=1e13")[5])["time"]).startswith("9999-")


@pytest.mark.parametrize("kind", ["loose_header", "loose_integers", "loose_keys"])
def test_cbor_that_is_not_canonical_says_the_same(kind: str) -> None:
    stream = served(f"{kind}:every=1")
    for old, new in zip(FRAMES, stream, strict=True):
        assert new.data != old.data
        assert frame_parts(new.data) == frame_parts(old.data)
    assert [f.seq for f in placed(f.data for f in stream)] == [f.seq for f in FRAMES]


def test_the_header_of_jetstreams_simulator() -> None:
    assert loosened(FRAMES[0].data, "loose_header").startswith(b"\xa2\x62op\x01\x61t")


def test_what_is_no_frame_stays_as_it_is() -> None:
    for data in (b"", b"\xff", b"\xa0", cbor2.dumps([1]) * 2, b"text"):
        assert with_values(data, seq=1) == loosened(data, "loose_keys") == sent_at(data, 1) == data
        assert not is_commit(data) and author(data) is None


def test_a_time_of_sending_changes_the_time_only() -> None:
    for frame in FRAMES:
        assert body(frame._replace(data=sent_at(frame.data, END_US + 5_000_000))) == body(frame) | {
            "time": "2026-09-21T14:13:25.000Z"
        }


def test_a_reset_keeps_its_place() -> None:
    frames = list(Traffic(Plan(400, seed=3, end_us=END_US, resets=(Reset(200, 50),))).frames())
    [reset] = [i for i, f in enumerate(frames) if f.anew]
    assert frames[reset].seq in range(50, 56)
    for after in range(reset - 3, reset + 1):
        assert served(f"overtake:after={after},count=2,by=2", frames=frames) == frames


def test_other_streams_have_the_same_events() -> None:
    messages = list(as_jetstream(FRAMES))
    assert len(messages) == sum(len(body(f).get("ops", "1")) for f in FRAMES)  # type: ignore[arg-type]
    assert all(m.text and m.data.startswith(b"{") for m in messages)
    labels = list(as_labels(FRAMES))
    assert [f.seq for f in labels] == [f.seq for f in FRAMES]
    assert {libipld.decode_dag_cbor_multi(f.data)[0]["t"] for f in labels} == {"#labels"}


def test_a_fault_must_say_where() -> None:
    with pytest.raises(SettingsError, match="scatter="):
        served("swap")
