"""Older brokers, from the same place as the jars of today: the whole way, exactly.

A download of a minute or two for each, so only where it is asked for: OLD_KAFKA=3.3.2,3.6.2,3.9.1 names the versions.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from streams.kafka.versions import is_too_old
from streams.local import kafka
from streams.local.jars import find_java
from tests.acceptance.deployment import Deployment
from tests.conftest import SettingsFactory

VERSIONS = [version for version in os.environ.get("OLD_KAFKA", "").split(",") if version]


class OldKafka(kafka.Kafka):
    """A cluster of one broker of another version; its jars are kept in the folder for temporary files."""

    version = ""

    def install(self) -> list[str]:
        folder = Path(tempfile.gettempdir()) / f"atproto-streams-kafka-{self.version}"
        if not (folder / "complete").exists():
            _download(self.version, folder)
        return [find_java(), *kafka._JVM, "-cp", f"{folder}/*"]


def _download(version: str, folder: Path) -> None:
    from jgo.config import GlobalSettings
    from jgo.maven import Dependency, MavenContext

    folder.mkdir(exist_ok=True)
    maven = MavenContext(repo_cache=folder / "repository", timeout=60)
    maven.remote_repos = {**GlobalSettings.load().repositories, **maven.remote_repos}
    broker = Dependency(maven.project("org.apache.kafka", "kafka_2.13").at_version(version).artifact())
    _, nodes = maven.resolver.get_dependency_list([broker])
    for artifact in [broker.artifact, *(node.dep.artifact for node in nodes)]:
        shutil.copy(artifact.resolve(), folder)
    (folder / "complete").touch()


@pytest.mark.skipif(not VERSIONS, reason="OLD_KAFKA names no versions")
@pytest.mark.parametrize("version", VERSIONS)
async def test_the_whole_way_through_an_older_broker(
    version: str, deployment: Deployment, settings: SettingsFactory, tmp_path: Path
) -> None:
    old = OldKafka(tmp_path / "kafka", tmp_path / "logs")
    old.version = version
    old.start()
    try:
        deployment.environment["KAFKA_BOOTSTRAP_SERVERS"] = old.bootstrap_servers
        relay, oracle = await deployment.generated(5000)
        worker = deployment.worker()
        await deployment.until_done(deployment.ingest(relay.url))
        counts = await deployment.check(oracle, oracle["last_seq"] or 0)
        assert counts["received"] == 5000
        await worker.stop()
        assert not await is_too_old(settings(kafka_bootstrap_servers=old.bootstrap_servers))
    finally:
        old.stop()
