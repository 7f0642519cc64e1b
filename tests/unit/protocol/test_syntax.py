"""DIDs, NSIDs and record keys: the hot path's rules agree with the SDK's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from atproto_client.models import string_formats
from hypothesis import given
from hypothesis import strategies as st

from streams.protocol.syntax import is_did, is_nsid, is_rkey
from streams.text import printable

#: The context by which the SDK's models ask for strict string formats.
STRICT = SimpleNamespace(context={"strict_string_format": True})
ALPHABET = st.text(alphabet="aZ09.-_:~%/ é\n\x00", max_size=40)


def sdk_says(validate: Callable[..., object], text: str) -> bool:
    if text.endswith("\n"):  # the SDK's patterns end with $, which also matches before a last newline
        return False
    try:
        validate(text, STRICT)
    except ValueError:
        return False
    return True


@given(ALPHABET)
def test_record_keys(text: str) -> None:
    assert bool(is_rkey(text)) == sdk_says(string_formats.validate_record_key, text)


@given(st.builds("{}.{}.{}".format, ALPHABET, ALPHABET, ALPHABET) | ALPHABET | st.just("app.bsky.feed.post"))
def test_nsids_that_the_sdk_takes_are_taken(text: str) -> None:
    if sdk_says(string_formats.validate_nsid, text):
        assert is_nsid(text)


@given(st.builds("did:{}:{}".format, st.sampled_from(["plc", "web", "x", "9", "PLC", ""]), ALPHABET))
def test_dids_that_the_sdk_takes_are_taken(text: str) -> None:
    if sdk_says(string_formats.validate_did, text):
        assert is_did(text)


@pytest.mark.parametrize(
    "text", ["did:plc", "did:PLC:a", "did:plc:a\x00", "did:plc:a\n", "did:plc:" + "a" * 2100, "at://a"]
)
def test_what_is_no_did(text: str) -> None:
    assert not is_did(text)


@pytest.mark.parametrize("text", ["", "a", "a.b", "app.bsky.feed.post\n", "app..post", "1a.b.c", "a.b.c-d"])
def test_what_is_no_nsid(text: str) -> None:
    assert not is_nsid(text)


def test_what_is_shown_cannot_move_the_cursor() -> None:
    assert "\x1b" not in printable("\x1b[2Jhello\r\n") and len(printable("x" * 500)) == 100
