"""docker-compose.yml and the Dockerfile against the settings class, the README and the files that they name."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from streams.settings import PROFILES, Settings, setting_names
from streams.worker.container import COMMAND
from tests.unit.project.test_readme import default_text

PROJECT = Path(__file__).parents[3]
COMPOSE = (PROJECT / "docker-compose.yml").read_text()
CLUSTER = (PROJECT / "docker-compose.cluster.yml").read_text()
DOCKERFILE = (PROJECT / "Dockerfile").read_text()

#: Settings that the compose file decides itself.
FIXED = {
    "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_SECURITY_PROTOCOL", "DATABASE_URL", "LOCAL_DIR", "WORKER_WEB_BIND",
    "WORKER_WEB_PORT", "INGEST_WEB_BIND", "INGEST_WEB_PORT",
}  # fmt: skip
#: Settings without effect there: its broker takes no password and has no certificate.
WITHOUT_EFFECT = {name for name in setting_names() if name.startswith(("KAFKA_SASL_", "KAFKA_SSL_"))}
#: Settings that a profile presets: a default in the file would win over the profile.
PRESET = {name.upper() for name in PROFILES["background"]}


def block(text: str, name: str, indent: int) -> str:
    """The lines below the key ``name`` at that indentation: no YAML library is among the requirements."""
    lines = rf"((?:(?: {{{indent + 1},}}.*)?\n)*)"
    found = re.search(rf"^{' ' * indent}{re.escape(name)}:[ ]*\n{lines}", text, re.MULTILINE)
    assert found is not None, f"no {name}"
    return found.group(1)


def pairs(text: str, indent: int) -> dict[str, str]:
    """The keys with a scalar at that indentation."""
    return {
        key: value.strip('"') for key, value in re.findall(rf"^ {{{indent}}}([\w-]+): (.*)$", text, flags=re.MULTILINE)
    }


WORKER = block(COMPOSE, "python-backfill-worker", 2)
ENVIRONMENT = pairs(block(WORKER, "environment", 4), 6)


def test_the_worker_is_given_every_setting_and_nothing_else() -> None:
    assert set(ENVIRONMENT) == set(setting_names()) - WITHOUT_EFFECT


@pytest.mark.parametrize("name", sorted(set(ENVIRONMENT) - FIXED))
def test_a_default_is_the_settings_own(name: str) -> None:
    default = default_text(Settings.model_fields[name.lower()].default).strip("`")
    expected = "" if default == "unset" or name in PRESET else default
    assert ENVIRONMENT[name] == f"${{{name}:-{expected}}}"


def test_what_is_fixed_leads_to_the_other_services() -> None:
    values = {name.lower(): re.sub(r"\$\{\w+:-(\w+)\}", r"\1", ENVIRONMENT[name]) for name in FIXED}
    made = Settings(_env_file=None, **values)  # type: ignore[arg-type, call-arg]
    assert made.database_dsn() == "postgresql://postgres:postgres@db:5432/atproto"
    assert made.bootstrap_servers() == "kafka:19092"
    assert "KAFKA_LISTENERS: PLAINTEXT://:19092," in COMPOSE


def test_the_worker_waits_for_both_and_starts_again_on_failure() -> None:
    waits = block(WORKER, "depends_on", 4)
    for service in ("kafka", "db"):
        assert pairs(block(waits, service, 6), 8) == {"condition": "service_healthy"}
        assert "test: [" in block(block(COMPOSE, service, 2), "healthcheck", 4)
    assert pairs(WORKER, 4)["restart"] == "on-failure"


def test_health_is_an_answer_and_asking_costs_little() -> None:
    """Whether the checks hold is seen by tests/acceptance/test_containers.py; here, that they are of that kind."""
    checks = {service: block(block(COMPOSE, service, 2), "healthcheck", 4) for service in ("kafka", "db")}
    assert '"psql", "-U", "postgres", "-d", "atproto"' in checks["db"]  # pg_isready needs no database
    assert "/opt/kafka/bin" not in checks["kafka"]  # each of these tools is a Java, with the broker's heap
    # What a start after a crash may take, with room for a machine that has other work.
    assert {pairs(check, 6)["start_period"] for check in checks.values()} == {"10m"}


def test_the_health_check_asks_kafka_what_it_answers() -> None:
    """The bytes that bash sends are a request for the versions of the protocol, without a client's name."""
    (escaped,) = re.findall(r"printf '([^']+)'", block(COMPOSE, "kafka", 2))
    sent = bytes(int(octal, 8) for octal in escaped.split("\\\\")[1:])
    length, key, version, correlation, name = struct.unpack(">ihhih", sent)
    assert (length, key, version, name) == (len(sent) - 4, 18, 0, -1)
    assert correlation > 0


def test_ports_are_published_on_loopback_only_and_versions_are_pinned() -> None:
    for text in (COMPOSE, CLUSTER):
        published = re.findall(r"^ +ports:(?: !override)? \[(.*)\]", text, re.MULTILINE)
        assert published
        assert all(ports.startswith('"127.0.0.1:') for ports in published)
    assert re.findall(r"image: (\S+)", COMPOSE) == [
        "apache/kafka:4.4.0", "postgres:18", "atproto-streams", "prom/prometheus:v3.5.0", "grafana/grafana:12.1.0",
    ]  # fmt: skip


def test_the_container_has_room_for_worker_and_ingest() -> None:
    limit = pairs(WORKER, 4)["mem_limit"]
    assert limit == "${CONTAINER_MEMORY_MB:-${BACKFILL_MAX_MEMORY_MB:-1024}0}m"
    unset = 10 * 1024  # what BACKFILL_MAX_MEMORY_MB can be where it is not set: any profile's
    assert all(2 * int(str(preset["backfill_max_memory_mb"])) + 256 <= unset for preset in PROFILES.values())


def test_the_cluster_is_three_brokers_and_four_workers() -> None:
    assert re.findall(r'KAFKA_NODE_ID: "(\d)"', CLUSTER) == ["1", "2", "3"]
    assert re.findall(r'WORKER_ID: "(\d)"', CLUSTER) == ["0", "1", "2", "3"]


def test_volumes_are_declared_and_where_the_images_want_them() -> None:
    for text in (COMPOSE, CLUSTER):
        used = re.findall(r'volumes: \["([\w-]+):', text)
        declared = re.findall(r"^  ([\w-]+):$", text.split("\nvolumes:\n")[1], re.MULTILINE)
        assert set(used) == set(declared)
    assert "db-data:/var/lib/postgresql" in COMPOSE


def test_the_image_runs_the_readme_s_command_as_nobody_special() -> None:
    program, quiet, *rest = COMMAND
    assert " ".join((program, *rest)) in (PROJECT / "README.md").read_text()
    assert quiet == "--quiet"  # Faust's banner is no line of JSON
    assert 'ENTRYPOINT ["python", "-m", "streams.worker.container"]' in DOCKERFILE
    assert re.search(r"^USER (?!0|root)\d+$", DOCKERFILE, re.MULTILINE)
    assert f"LOCAL_DIR={ENVIRONMENT['LOCAL_DIR']}" in DOCKERFILE


def test_the_image_is_made_of_files_that_exist() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (PROJECT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored
    assert set(re.findall(r"-r (\S+)", DOCKERFILE)) == {"requirements/build.txt", "requirements/runtime.txt"}
    assert "--require-hashes" in DOCKERFILE
    assert "index-url" not in DOCKERFILE


def test_the_example_names_settings_with_their_defaults() -> None:
    for name, value in re.findall(r"^#?(\w+)=(.*)$", (PROJECT / ".env.example").read_text(), re.MULTILINE):
        if name in setting_names() and name not in ("BACKFILL_DAYS", "BACKFILL_PROFILE"):
            assert value == default_text(Settings.model_fields[name.lower()].default).strip("`"), name
        else:
            assert name in COMPOSE
