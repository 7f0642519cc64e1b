"""KAFKA_BOOTSTRAP_SERVERS as people write it: understood, or a sentence with the right form and no password."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka.conn import collect_hosts
from hypothesis import given
from hypothesis import strategies as st

from streams.environment.brokers import named_protocols, parse_servers
from streams.errors import SettingsError
from streams.settings import load_settings

UNDERSTOOD = {
    "h:9092": "h:9092",
    "h": "h:9092",
    " h:9092 ": "h:9092",
    "a:1,b:2": "a:1,b:2",
    "a:1, b:2,": "a:1,b:2",
    ",a:1,,b:2,": "a:1,b:2",
    "a:1;b:2": "a:1,b:2",
    "a:1 b:2": "a:1,b:2",
    "a:1\nb:2\n": "a:1,b:2",
    "a:1,a:1,b:2": "a:1,b:2",
    "PLAINTEXT://h:9092": "h:9092",
    "plaintext://h:9092": "h:9092",
    "kafka://h:9092": "h:9092",
    "kafka://a:1,b:2": "a:1,b:2",
    "kafka://a:1;kafka://b:2": "a:1,b:2",
    "tcp://10.0.0.7:9092": "10.0.0.7:9092",
    "PLAINTEXT://h:9092/": "h:9092",
    "h:9092/": "h:9092",
    '"h:9092"': "h:9092",
    "'a:1,b:2'": "a:1,b:2",
    '"a:1","b:2"': "a:1,b:2",
    '["a:1", "b:2"]': "a:1,b:2",
    "['a:1','b:2']": "a:1,b:2",
    "[a:1,b:2]": "a:1,b:2",
    "[a:1 b:2]": "a:1,b:2",
    "“h:9092”": "h:9092",
    "[::1]:9092": "[::1]:9092",
    "[2001:db8::1]": "[2001:db8::1]:9092",
    "[::1]:9092,[::2]:9093": "[::1]:9092,[::2]:9093",
    '["[::1]:9092"]': "[::1]:9092",
    "PLAINTEXT://[::1]:9092/": "[::1]:9092",
    "127.0.0.1:9092": "127.0.0.1:9092",
    "my_kafka:9092": "my_kafka:9092",
    "kafka-0.kafka.svc.cluster.local:9092": "kafka-0.kafka.svc.cluster.local:9092",
    "kafka.example.com.:9092": "kafka.example.com.:9092",
    "bücher.example:9092": "xn--bcher-kva.example:9092",
    "h:09092": "h:9092",
}
REFUSED = (
    ",", "[]", '""', "h:abc", "h:0", "h:65536", "h:-1", "h:9092:9092", "h:9092/topic", "http://h:8082", ":9092",
    "zookeeper://h:2181", "postgresql://u:hunter2@h/db", "kafka://user:hunter2@h:9092", "user:hunter2@h:9092", "::1",
    "2001:db8::1", "[::1", "[::1]9092", "[::g]:9092", "9092", "h..x:9092", "-h:9092", "a" * 64 + ":9092", "h=x", "h:9²",
    "<host>:9092", "${KAFKA_HOST}:9092", "host:port", "[a:1", "*:9092",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_it_is_understood(text: str) -> None:
    settings = load_settings(kafka_bootstrap_servers=text)
    assert settings.bootstrap_servers() == UNDERSTOOD[text]
    assert len(collect_hosts(settings.bootstrap_servers())) == settings.bootstrap_servers().count(",") + 1


@pytest.mark.parametrize("text", REFUSED)
def test_it_is_refused_with_the_right_form(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", text)
    with pytest.raises(SettingsError, match=r"^KAFKA_BOOTSTRAP_SERVERS: .*(:9092|1 to 65535)") as refusal:
        load_settings()
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_port_that_is_left_out_behind_its_colon_is_kafkas() -> None:
    assert parse_servers("h:") == "h:9092"


@given(st.text(alphabet=st.sampled_from("ah1:9[]/@,; \"'.-_é\n%"), max_size=24))
def test_whatever_it_is_it_is_addresses_or_a_sentence(text: str) -> None:
    try:
        servers = parse_servers(text)
    except ValueError as error:
        assert len(str(error)) < 200
    else:
        assert parse_servers(servers) == servers
        assert all(1 <= port <= 65535 for _, port, _ in collect_hosts(servers))


def test_the_protocol_that_an_address_names_must_be_the_one_that_is_spoken() -> None:
    assert named_protocols("SSL://a:1,kafka://b:2,c:3") == {"SSL"}
    with pytest.raises(SettingsError, match="says SSL, and KAFKA_SECURITY_PROTOCOL is PLAINTEXT"):
        load_settings(kafka_bootstrap_servers="SSL://h:9093")
    with pytest.raises(SettingsError, match="says PLAINTEXT, SSL"):
        load_settings(kafka_bootstrap_servers="SSL://h:9093,PLAINTEXT://h:9092", kafka_security_protocol="SSL")
    assert load_settings(kafka_bootstrap_servers="SSL://h:9093", kafka_security_protocol="SSL").bootstrap_servers()
