"""RELAY_URL as people write it: understood, or a sentence with the right form, and never a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.uri import parse_uri

from streams.environment.relay_address import ENDPOINT, relay_address
from streams.errors import SettingsError
from streams.settings import load_settings
from streams.sources.firehose.relay import cursor_url, relay_name
from streams.ui.terminal.config import as_shown

WSS = f"wss://bsky.network{ENDPOINT}"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (" wss://bsky.network \n", WSS),
        ("'wss://bsky.network/'", WSS),
        ("\u201cwss://bsky.network\u201d", WSS),
        ("<https://bsky.network>", WSS),
        ("HTTPS://bsky.network/", WSS),
        ("WSS://bsky.network/xrpc/", WSS),
        ("bsky.network", WSS),
        ("//bsky.network", WSS),
        (f"bsky.network{ENDPOINT}/", WSS),
        (f"{WSS}?cursor=0", WSS),
        (f"{WSS}?cursor=0#top", WSS),
        (f"{WSS}?wanted=a&cursor=12&b=", f"{WSS}?wanted=a&b="),
        ("http://bsky.network:80", f"ws://bsky.network:80{ENDPOINT}"),
        ("bsky.network:2470", f"wss://bsky.network:2470{ENDPOINT}"),
        ("localhost:2470", f"ws://localhost:2470{ENDPOINT}"),
        ("127.0.0.1:2470", f"ws://127.0.0.1:2470{ENDPOINT}"),
        ("relay:2470", f"ws://relay:2470{ENDPOINT}"),
        ("[::1]:2470", f"ws://[::1]:2470{ENDPOINT}"),
        ("wss://[2001:db8::1]/", f"wss://[2001:db8::1]{ENDPOINT}"),
        ("wss://my_relay.example//xrpc//x", "wss://my_relay.example/xrpc/x"),
        ("wss://u:p%40s@bsky.network", f"wss://u:p%40s@bsky.network{ENDPOINT}"),
        ("ws://h\u00f6st.example", f"ws://h\u00f6st.example{ENDPOINT}"),
    ],
)
def test_what_people_write_is_understood(given: str, meant: str) -> None:
    assert load_settings(relay_url=given).relay_url == meant
    assert load_settings(relay_url=meant).relay_url == meant, "a child process gets it so"
    parse_uri(cursor_url(meant, 5))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "empty"),
        ('""', "empty"),
        ("ftp://bsky.network", "begins with wss://"),
        ("at://did:plc:x", "begins with wss://"),
        ("wss:/bsky.network", "not complete"),
        ("wss//bsky.network", "not complete"),
        ("https:bsky.network", "not complete"),
        ("https://https://bsky.network", "wss://HOST"),
        ("wss://a.example,wss://b.example", "one relay only"),
        ("wss://a.example wss://b.example", "one relay only"),
        ("wss:\\\\bsky.network", "one relay only"),
        ("yes", "names no host"),
        ("wss://", "host"),
        ("wss:///xrpc", "host"),
        ("wss://bsky..network", "host"),
        ("wss://-bsky.network", "host"),
        (f"wss://{'a' * 64}.example", "host"),
        ("wss://bsky.network:", "port"),
        ("wss://bsky.network:0", "port"),
        ("wss://bsky.network:65536", "port"),
        ("wss://bsky.network:\u0661", "port"),
        ("::1", "brackets"),
        ("ws://::1:2470", "brackets"),
        ("ws://[::1", "brackets"),
        ("ws://[x]:1", "host"),
        ("wss://u@bsky.network", "USER:PASSWORD"),
    ],
)
def test_what_is_no_address_is_refused_with_the_right_form(given: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        relay_address(given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "place",
    [
        "u:hunter2/x@h.example",
        "u:hunter2#@h.example",
        "u:1?hunter2@h.example:80/x",
        "u:hunter2 @h.example",
        "u:hunter2@",
        "u:hunter2@h..example",
        "u:hunter2@h:x",
    ],
)
@pytest.mark.parametrize("scheme", ["wss://", "", "ftp://"])
def test_a_password_is_in_no_sentence(scheme: str, place: str) -> None:
    with pytest.raises(SettingsError, match="RELAY_URL") as refusal:
        load_settings(relay_url=scheme + place)
    assert "hunter2" not in str(refusal.value)


def test_a_password_is_not_shown() -> None:
    settings = load_settings(relay_url="wss://u:hunter2@bsky.network?token=hunter2")
    shown = as_shown(settings, "relay_url")
    assert "hunter2" not in f"{settings!r} {settings} {shown} {relay_name(settings.relay_url)}"


@given(st.text(st.sampled_from("ws:/?#@[]%.-\u00e9 a1,&=\\'\"\t"), max_size=30))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    try:
        address = relay_address(text)
    except ValueError as error:
        assert str(error)
        assert type(error) is ValueError
        return
    assert relay_address(address) == address
    assert address.startswith(("ws://", "wss://"))
    assert parse_uri(cursor_url(address, 7)).resource_name.endswith("cursor=7")


@pytest.mark.parametrize(
    ("url", "cursor", "asked"),
    [
        ("ws://h/x", None, "ws://h/x"),
        ("ws://h/x", 5, "ws://h/x?cursor=5"),
        ("ws://h/x?a=b", 5, "ws://h/x?a=b&cursor=5"),
        ("ws://h/x?cursor=9&a=b", 5, "ws://h/x?a=b&cursor=5"),
        ("ws://h/x?cursor=9", None, "ws://h/x"),
        ("ws://h/x", -1, "ws://h/x?cursor=0"),
    ],
)
def test_the_cursor_is_set_beside_what_else_is_asked_and_is_never_negative(
    url: str, cursor: int | None, asked: str
) -> None:
    assert cursor_url(url, cursor) == asked
