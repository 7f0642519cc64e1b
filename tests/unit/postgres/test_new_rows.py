"""The expectation that records are new: how often it is tried again after it was wrong."""

from __future__ import annotations

from streams.postgres.new_rows import FIRST_REST, LONGEST_REST, Expectation
from tests.support import merge_model as model
from tests.unit.postgres.test_batch import DID, build


def test_a_batch_for_which_it_did_not_hold_says_nothing() -> None:
    expectation = Expectation()
    for _ in range(2):
        assert expectation.holds()
        expectation.note(wrong=True)
        rest = 0
        while not expectation.holds():
            expectation.note(wrong=False)
            rest += 1
    assert rest == 2 * FIRST_REST


def test_what_was_not_asked_for_says_nothing() -> None:
    expectation = Expectation()
    expectation.note(wrong=True)
    assert expectation.holds()


def rests(expectation: Expectation) -> int:
    """Return the batches until the expectation holds again."""
    count = 0
    while not expectation.holds():
        count += 1
    return count


def test_it_holds_until_it_was_wrong_and_then_rests_twice_as_long_each_time() -> None:
    expectation = Expectation()
    assert [rests(expectation) for _ in range(3)] == [0, 0, 0]  # each asks, and it holds
    seen = []
    for _ in range(9):
        expectation.note(wrong=True)
        seen.append(rests(expectation))
    assert seen == [16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert (seen[0], seen[-1]) == (FIRST_REST, LONGEST_REST)


def test_once_it_was_right_it_begins_again_with_the_shortest_rest() -> None:
    expectation = Expectation()
    rests(expectation)
    for _ in range(3):
        expectation.note(wrong=True)
        rests(expectation)
    expectation.note(wrong=None)
    expectation.note(wrong=True)
    assert rests(expectation) == 8 * FIRST_REST
    expectation.note(wrong=False)
    expectation.note(wrong=True)
    assert rests(expectation) == FIRST_REST


def test_a_record_is_expected_new_where_it_was_created_at_the_time_of_its_rev() -> None:
    rev = model.rev(1)
    created = model.commit(DID, rev[:6] + "zzzzzzz", 1, 1)
    earlier = model.commit(DID, "2" + rev[1:6] + "zzzzzzz", 1, 1)
    just_before = model.commit(DID, rev[:5] + ("3" if rev[5] == "2" else "2") + "zzzzzzz", 1, 1)
    updated = model.commit(DID, rev[:6] + "yyyyyyy", 1, 1)
    updated["commit"]["operation"] = "update"
    deleted = model.commit(DID, rev[:6] + "xxxxxxx", 1, 1)
    deleted["commit"] |= {"operation": "delete", "cid": None, "record": None}
    for event, expected in (
        (created, True),
        (earlier, False),
        (just_before, False),
        (updated, False),
        (deleted, False),
    ):
        batch = build(event)
        assert batch.dead == []
        assert batch.grouped(expect_new=True).columns.expected_new == (expected,)
        assert batch.grouped(expect_new=True).ends == (int(expected), 1)
        assert batch.grouped().ends == (0, 1)
