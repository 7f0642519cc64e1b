"""The oracle's own rules, event by event."""

from streams.simulator.oracle import Oracle, differences, fold_nul

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
PATH = "app.bsky.feed.post/3kztiuvx7zs2n"
CID = b"\x01\x71\x12\x20" + bytes(32)


def opened() -> Oracle:
    oracle = Oracle()
    assert oracle.frame("#commit", 1, 0)
    return oracle


def test_the_last_write_of_a_key_counts() -> None:
    oracle = opened()
    oracle.write(DID, PATH, "create", "3kaaaaaaaaaa2", CID, value={"text": "a"})
    oracle.write(DID, PATH, "delete", "3kaaaaaaaaab2", None, value=None)
    assert oracle.state()["records"] == {}
    oracle.write(DID, PATH, "create", "3kaaaaaaaaac2", CID, value={"text": "b\0"})
    [record] = oracle.state()["records"][DID].values()
    assert (record["rev"], record["value"]) == ("3kaaaaaaaaac2", {"text": "b\0"})
    assert record["cid"].startswith("bafyrei")
    assert oracle.state()["counts"]["operations"] == {"create": 2, "delete": 1}


def test_a_deleted_account_has_no_records_until_it_writes_anew() -> None:
    oracle = opened()
    oracle.write(DID, PATH, "create", "3kaaaaaaaaaa2", CID, value={})
    oracle.account(DID, active=False, status="deleted")
    assert oracle.state()["accounts"][DID]["deleted"]
    oracle.account(DID, active=True, status=None)
    assert oracle.state()["records"] == {}
    oracle.write(DID, PATH, "create", "3kaaaaaaaaab2", CID, value={})
    assert list(oracle.state()["records"]) == [DID]
    assert not oracle.state()["accounts"][DID]["deleted"]


def test_a_hidden_account_keeps_its_records() -> None:
    for status, hidden in (("takendown", True), ("suspended", True), ("deactivated", True), ("desynchronized", False)):
        oracle = opened()
        oracle.write(DID, PATH, "create", "3kaaaaaaaaaa2", CID, value={})
        oracle.account(DID, active=False, status=status)
        assert oracle.state()["accounts"][DID]["hidden"] is hidden
        assert DID in oracle.state()["records"]


def test_an_identity_without_a_handle_says_nothing_of_it() -> None:
    oracle = opened()
    oracle.identity(DID, "a.example.com")
    oracle.identity(DID, None)
    assert oracle.state()["accounts"][DID]["handle"] == "a.example.com"


def test_what_is_before_the_window_does_not_count() -> None:
    oracle = Oracle(from_seq=10, from_us=100)
    assert not oracle.frame("#commit", 9, 100)
    oracle.write(DID, PATH, "create", "3kaaaaaaaaaa2", CID, value={})
    assert not oracle.frame("#commit", 10, 99)
    assert oracle.frame("#commit", 11, 100)
    assert oracle.frame("#commit", 1, 200)  # a reset sequence stays in the window
    state = oracle.state()
    assert (state["records"], state["first_seq"], state["last_seq"]) == ({}, 11, 1)
    assert state["counts"]["events"] == 0


def test_differences_name_each_record_and_fold_nul() -> None:
    record = {"cid": "bafy1", "rev": "3k", "value": {"text": "a\0", "k\0": [1, None]}}
    stored = {**record, "value": fold_nul(record["value"])}
    assert differences({DID: {PATH: record}}, {DID: {PATH: stored}}) == []  # type: ignore[dict-item]
    assert differences({DID: {PATH: record}}, {}) == [f"{DID}/{PATH}: is missing"]  # type: ignore[dict-item]
    assert differences({}, {DID: {PATH: stored}}) == [f"{DID}/{PATH}: is there, and should not be"]
    [problem] = differences({DID: {PATH: record}}, {DID: {PATH: {**stored, "value": {}}}})  # type: ignore[dict-item]
    assert "another value" in problem
    assert len(differences({}, {DID: {str(n): stored for n in range(99)}}, limit=5)) == 5
