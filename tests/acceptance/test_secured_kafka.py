"""A Kafka that asks who we are, and lets us do only what docs/operating.md asks for: it works, or says why not."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from streams.local import ports
from streams.local.kafka import Broker, Kafka
from tests.acceptance.commands import FAUST, finish
from tests.acceptance.deployment import Deployment
from tests.acceptance.test_errors import AWAY, COMMANDS, run, sentence
from tests.support.patience import PATIENCE

USER, PASSWORD = "alice", "right-horse"
EVENTS = 2_000
#: Each a listener of its own, named as what it speaks.
PROTOCOLS = ("SASL_SSL", "SASL_PLAINTEXT", "SSL")

_SECURITY = """\
listener.security.protocol.map=\
CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.ssl.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
ssl.principal.mapping.rules=RULE:^CN=([^,]+),.*$/$1/
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
#: As the document says them.
TOPIC_RIGHTS = ("Create", "Describe", "Read", "Write", "DescribeConfigs", "AlterConfigs")
GROUP_RIGHTS = ("Read",)
#: Kafka's operations and their codes: org.apache.kafka.common.acl.AclOperation; below ResourceType and the like.
OPERATIONS = {
    "Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8, "ClusterAction": 9,
    "DescribeConfigs": 10, "AlterConfigs": 11, "IdempotentWrite": 12,
}  # fmt: skip
_TOPIC, _GROUP, _PREFIXED, _ALLOW = 2, 3, 4, 3


class Secured(Kafka):
    """The embedded broker with more listeners, all of which ask; the open one stays for the test's own looks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "kafka", folder / "logs")
        #: Of the listener in the clear, as of the next start; the other's stands in the cluster's metadata.
        self.password = PASSWORD
        self.secured = dict(zip(PROTOCOLS, ports.choose(len(PROTOCOLS), []), strict=True))
        authority = trustme.CA()
        self.authority, self.stranger = folder / "authority.pem", folder / "stranger.pem"
        authority.cert_pem.write_to_path(self.authority)
        trustme.CA().cert_pem.write_to_path(self.stranger)
        server = authority.issue_cert(ports.LOOPBACK)
        client = authority.issue_cert(f"{USER}@example.org", common_name=USER)
        self.keystore, self.certificate, self.key = (folder / name for name in ("server.pem", "alice.pem", "alice.key"))
        # Java reads a key in PKCS #8 only.
        key = load_pem_private_key(server.private_key_pem.bytes(), None)
        self.keystore.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + b"".join(blob.bytes() for blob in server.cert_chain_pems)
        )
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
        client.private_key_pem.write_to_path(self.key)

    def _configure(self, broker: Broker, data: Path) -> None:
        super()._configure(broker, data)
        more = "".join(f",{protocol}://{ports.LOOPBACK}:{port}" for protocol, port in self.secured.items())
        lines = broker.config.read_text().splitlines()
        lines = [line + more if line.startswith(("listeners=", "advertised.listeners=")) else line for line in lines]
        asks = _SECURITY.format(user=USER, password=self.password, keystore=self.keystore, authority=self.authority)
        broker.config.write_text("\n".join(lines) + "\n" + asks)

    def _format(self, broker: Broker, java: list[str]) -> None:
        """With the user in the cluster's metadata, as Kafka's documents say."""
        if broker.data.exists():
            return
        secret = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        subprocess.run(
            [
                *java, "kafka.tools.StorageTool", "format", "-t", str(self._facts()["cluster_id"]),
                "-c", str(broker.config), "--add-scram", secret,
            ],
            check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    async def allow(self) -> None:
        """The user's rights. Topics and groups of a test begin so; changelogs are named as the group."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        for kind, rights in ((_TOPIC, TOPIC_RIGHTS), (_GROUP, GROUP_RIGHTS)):
            for name, right in itertools.product(("test.", "group-"), rights):
                what = (kind, name, _PREFIXED, f"User:{USER}", "*", OPERATIONS[right], _ALLOW)
                answer = await admin._send_request(CreateAclsRequest(*what))
                assert answer.creation_responses[0][0] == 0, answer
        await admin.close()

    def access(self, protocol: str) -> dict[str, str]:
        """What a user is given, as settings."""
        given = {
            "KAFKA_BOOTSTRAP_SERVERS": f"{ports.LOOPBACK}:{self.secured[protocol]}",
            "KAFKA_SECURITY_PROTOCOL": protocol,
        }
        if protocol.startswith("SASL"):
            given |= {"KAFKA_SASL_USERNAME": USER, "KAFKA_SASL_PASSWORD": PASSWORD}
            given["KAFKA_SASL_MECHANISM"] = "SCRAM-SHA-512" if protocol == "SASL_SSL" else "PLAIN"
        if protocol.endswith("SSL"):
            given["KAFKA_SSL_CAFILE"] = str(self.authority)
        if protocol == "SSL":
            given |= {"KAFKA_SSL_CERTFILE": str(self.certificate), "KAFKA_SSL_KEYFILE": str(self.key)}
        return given


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    kafka = Secured(tmp_path_factory.mktemp("secured"))
    try:
        kafka.start()
        asyncio.run(kafka.allow())
        yield kafka
    finally:
        kafka.stop()


@pytest.fixture
def settings_environment(settings_environment: dict[str, str], secured: Secured) -> dict[str, str]:
    """As everywhere, on this broker."""
    return {**settings_environment, "KAFKA_BOOTSTRAP_SERVERS": secured.bootstrap_servers}


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SSL"])  # the third is below
async def test_everything_goes_through(deployment: Deployment, secured: Secured, protocol: str) -> None:
    settings = secured.access(protocol)
    relay, oracle = await deployment.generated(EVENTS)
    worker = deployment.worker(**settings)
    await deployment.until_done(deployment.ingest(relay.url, **settings))
    await deployment.check(oracle, oracle["last_seq"] or 0)
    status = await finish([*FAUST, "status"], {**deployment.environment, **settings}, deployment.folder)
    assert status.code == 0, status.errors
    await worker.stop()
    assert PASSWORD not in worker.output + status.output


async def test_a_password_that_changes_meanwhile_is_said_and_waited_for(
    deployment: Deployment, secured: Secured
) -> None:
    settings = secured.access("SASL_PLAINTEXT")
    relay, oracle = await deployment.generated(EVENTS)
    commands = deployment.ingest(relay.url, "--follow", **settings), deployment.worker(**settings)
    await deployment.until_received(EVENTS)
    for password, words in (("another-horse", "refuses us: .* Waiting for it"), (PASSWORD, "Kafka is back after")):
        secured.password = password
        await asyncio.to_thread(secured.restart)
        for command in commands:
            await command.line(words)
    await deployment.check(oracle, oracle["last_seq"] or 0)
    for command in commands:
        await command.stop()
        assert "horse" not in command.output


async def test_who_is_refused_is_told_why(deployment: Deployment, secured: Secured) -> None:
    over_tls, certificate = secured.access("SASL_SSL"), secured.access("SSL")
    files = ("KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE")
    without = {name: value for name, value in certificate.items() if name not in files}
    cases = [
        ({**over_tls, "KAFKA_SASL_PASSWORD": "wrong-horse"}, "refuses us: are KAFKA_SASL_USERNAME"),
        ({**over_tls, "KAFKA_SASL_MECHANISM": "PLAIN"}, "KAFKA_SASL_MECHANISM=PLAIN is none of its mechanisms"),
        ({**over_tls, "KAFKA_SSL_CAFILE": str(secured.stranger)}, "is KAFKA_SSL_CAFILE right"),
        ({**over_tls, "KAFKA_SSL_CAFILE": "/nowhere.pem"}, "KAFKA_SSL_CAFILE: /nowhere.pem cannot be used: No such"),
        ({**certificate, "KAFKA_SSL_CERTFILE": "/nowhere.pem"}, "KAFKA_SSL_CERTFILE or KAFKA_SSL_KEYFILE: "),
        ({**certificate, "KAFKA_SSL_KEYFILE": "/nowhere.pem"}, "KAFKA_SSL_CERTFILE or KAFKA_SSL_KEYFILE: "),
        ({**over_tls, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL"),
        (without, "KAFKA_SSL_CERTFILE where it asks"),
    ]
    ends = await asyncio.gather(
        *(run(deployment, command, **settings) for settings, _ in cases for command in ("ingest", "worker"))
    )
    for done, words in zip(ends, [words for _, words in cases for _ in COMMANDS], strict=True):
        assert done.code == 3, done.errors
        assert words in sentence(done)
        assert "horse" not in done.errors + done.output

    environment = {**deployment.environment, **cases[0][0], "RELAY_URL": f"ws://{AWAY}/"}
    for command in ("doctor", "status"):
        told = await finish([*FAUST, command], environment, deployment.folder)
        assert told.code == 3, told
        assert "refuses us" in told.output + told.errors


def test_the_document_names_these_rights() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    on_topics, on_groups = re.findall(r"^- .+ on (?:the topic|the groups) .+$", text.partition("(ACLs)")[2], re.M)[:2]
    assert set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)?\b", on_topics)) & {*OPERATIONS} == {*TOPIC_RIGHTS}
    assert set(re.findall(r"\b[A-Z][a-z]+\b", on_groups)) & {*OPERATIONS} == {*GROUP_RIGHTS}
