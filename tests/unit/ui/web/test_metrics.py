"""The metrics keep to Prometheus' conventions, and every rule and dashboard asks for metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from streams.status.model import Paused, Process, Status
from streams.status.process import Mode
from streams.ui.web.deployment_metrics import DeploymentFigures
from streams.ui.web.figures import Figures
from streams.ui.web.metrics import PREFIX, ProcessFigures
from tests.support import web_samples as samples
from tests.support.promql import Scrape, Vector, fires, scraped, silent, together
from tests.support.web_samples import before

CONTRIB = Path(__file__).parents[4] / "contrib"
ALERTS = yaml.safe_load((CONTRIB / "prometheus" / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((CONTRIB / "grafana" / "dashboards" / "atproto-streams.json").read_text())
#: What Prometheus itself makes.
ITS_OWN = {"up"}
LABELS = {"outcome", "partition", "mode", "kind", "state", "le", "version"}


def registry(figures: Figures) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(ProcessFigures(lambda: figures))
    made.register(DeploymentFigures(samples.status()))
    return made


def families(figures: Figures) -> list[Metric]:
    return list(parse(generate_latest(registry(figures)).decode()))


EVERY = [*families(samples.worker_figures()), *families(samples.ingest_figures())]


def values(figures: Figures, name: str, **labels: str) -> list[float]:
    return [
        s.value for f in families(figures) for s in f.samples if s.name == name and labels.items() <= s.labels.items()
    ]


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_conventions(metric: Metric) -> None:
    assert metric.documentation.endswith(".")
    assert metric.name.startswith(PREFIX)
    for sample in metric.samples:
        assert set(sample.labels) <= LABELS
        if metric.type == "counter":
            assert sample.name.endswith("_total")
        else:
            assert not sample.name.endswith("_total")
    if metric.type == "gauge" and any(word in metric.name for word in ("_left", "timestamp", "_seconds")):
        assert metric.name.endswith("_seconds")
    assert not re.search(r"(_ms|_millis|_mb|_kb|_minutes|_hours|_percent)$", metric.name)


def test_openmetrics_too() -> None:
    text = generate_openmetrics(registry(samples.worker_figures())).decode()
    assert len(list(parse_openmetrics(text))) > 20


def test_no_label_is_a_strangers() -> None:
    made = CollectorRegistry()
    made.register(DeploymentFigures(samples.hostile()))
    assert len(generate_latest(made)) < 10_000


def test_a_workers_figures() -> None:
    worker = samples.worker_figures()
    assert values(worker, "atproto_streams_worker_events_total", outcome="applied") == [4_170_020]
    assert values(worker, "atproto_streams_worker_lag_messages", partition="3") == [131_020]
    assert values(worker, "atproto_streams_worker_mode", mode="paced") == [1]
    assert sum(values(worker, "atproto_streams_worker_mode")) == 1
    assert values(worker, "atproto_streams_worker_transaction_seconds_bucket", le="0.05") == [3]
    assert values(worker, "atproto_streams_worker_transaction_seconds_count") == [5]
    assert values(worker, "atproto_streams_worker_transactions_in_flight_max") == [1]


def test_an_ingest_that_has_not_begun_has_no_position() -> None:
    waiting = samples.ingest_figures(state=None, why="it makes its plan")
    assert values(waiting, "atproto_streams_ingest_seq") == []
    assert values(waiting, "atproto_streams_ingest_mode", mode="starting") == [1]
    assert values(samples.ingest_figures(), "atproto_streams_ingest_dead_letters_total", kind="operation") == [10]


def test_the_deployments_figures_are_the_statuss() -> None:
    worker = samples.worker_figures()
    assert values(worker, "atproto_streams_deployment_lag_messages") == [samples.status().lag]
    assert values(worker, "atproto_streams_deployment_processes", kind="worker", state="down") == [1]
    assert values(worker, "atproto_streams_deployment_processes", kind="ingest", state="alive") == [1]


def down(*processes: Process) -> float:
    made = CollectorRegistry()
    made.register(DeploymentFigures(samples.status(processes=processes)))
    value = made.get_sample_value("atproto_streams_deployment_processes", {"kind": "worker", "state": "down"})
    assert value is not None
    return value


def test_a_lost_worker_is_down_until_another_has_started_in_its_place() -> None:
    lost = [samples.process("worker", "a", n, alive=False, seen_at=before(minutes=n)) for n in (3, 2)]
    old, new, newer = (samples.process("worker", "a", 9, started_at=before(minutes=m)) for m in (5, 2.5, 1))
    assert down(*lost) == 2
    assert down(old, *lost) == 2
    assert down(new, *lost) == 1
    assert down(newer, *lost) == 1, "one for one"
    assert down(new, newer, *lost) == 0
    assert down(samples.process("ingest", "a", 9, started_at=before(minutes=1)), *lost) == 2
    ended = samples.process("worker", "a", 9, alive=False, started_at=before(minutes=1), ended_at=before(seconds=9))
    assert down(ended, *lost) == 2, "what has ended, too, is there for nobody"


def test_a_status_that_cannot_be_read_is_said() -> None:
    made = CollectorRegistry()
    made.register(DeploymentFigures(None))
    [family] = parse(generate_latest(made).decode())
    assert [(s.name, s.value) for s in family.samples] == [("atproto_streams_deployment_up", 0)]


# -- what asks for them


def asked(expression: str) -> set[str]:
    """The metrics that an expression selects."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        for part in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
            if (below := getattr(node, part, None)) is not None:
                visit(below)
        for below in getattr(node, "args", ()) or ():
            visit(below)

    visit(promql_parser.parse(expression))
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']} {target['refId']}", target["expr"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_every_metric_that_is_asked_for_exists(name: str, expression: str) -> None:
    there = {sample.name for metric in EVERY for sample in metric.samples}
    wanted = asked(expression)
    assert wanted, expression
    assert wanted <= there | ITS_OWN


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_every_mode_and_state_that_is_asked_for_exists(name: str, expression: str) -> None:
    there: dict[str, set[str]] = {}
    for metric in EVERY:
        for sample in metric.samples:
            for label, value in sample.labels.items():
                there.setdefault(label, set()).add(value)
    for label, alternatives in re.findall(r'(\w+)=~?"([^"]+)"', expression):
        if label != "job":
            assert set(alternatives.split("|")) <= there[label]


def test_the_alerts_that_were_asked_for_are_there_and_say_what_to_do() -> None:
    names = {rule["alert"] for rule in RULES}
    assert names >= {"RelayWindowRunsOut", "LagGrows", "DeadLetters", "Gap", "NoProgress", "WorkerDown", "MemoryPause"}
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


WORKER, INGEST = "atproto-streams-worker", "atproto-streams-ingest"
LOST = samples.process("worker", "host-b", 977, alive=False, seen_at=before(minutes=4))
AGAIN = samples.process("worker", "host-b", 980, started_at=before(minutes=3))


def healthy(**changes: Any) -> Status:
    return msgspec.structs.replace(samples.caught_up(), **changes)


def worker(status: Status | None = None, mode: Mode = Mode.PACED, instance: str = "a:6066") -> Scrape:
    figures = samples.worker_figures(state=msgspec.structs.replace(samples.WORKER, mode=mode))
    return scraped(WORKER, instance, ProcessFigures(lambda: figures), DeploymentFigures(status or healthy()))


def blind(instance: str = "a:6066") -> Scrape:
    return scraped(WORKER, instance, ProcessFigures(samples.worker_figures), DeploymentFigures(None))


def ingest(status: Status | None = None, **state: Any) -> Scrape:
    figures = samples.ingest_figures(state=msgspec.structs.replace(samples.INGEST, **state))
    return scraped(INGEST, "a:6166", ProcessFigures(lambda: figures), DeploymentFigures(status or healthy()))


def fired(alert: str, now: Scrape, then: Scrape | None = None) -> Vector:
    [rule] = [rule for rule in RULES if rule["alert"] == alert]
    return fires(rule["expr"], now, now if then is None else then)


def waiting(lag: int = 200_000, received: int = 10, **changes: Any) -> Status:
    return healthy(lag=lag, received=received, **changes)


@pytest.mark.parametrize(
    ("alert", "is_fired", "now", "then"),
    [
        ("RelayWindowRunsOut", True, ingest(window_left=3600.0, left=7200.0), None),
        # --follow, or an ingest that stands still: when it is there cannot be said.
        ("RelayWindowRunsOut", True, ingest(window_left=3600.0, left=None), None),
        ("RelayWindowRunsOut", False, ingest(window_left=3600.0, left=1800.0), None),
        ("RelayWindowRunsOut", False, ingest(window_left=36_000.0, left=None), None),
        ("RelayWindowRunsOut", False, ingest(window_left=None, left=None), None),
        ("LagGrows", True, worker(waiting()), worker(waiting(150_000))),
        ("LagGrows", False, worker(waiting()), worker(waiting(250_000))),
        ("DeadLetters", True, worker(healthy(dead_letters=3)), worker()),
        ("DeadLetters", False, worker(healthy(dead_letters=3)), worker(healthy(dead_letters=3))),
        ("Gap", True, worker(healthy(gaps=3)), worker()),
        ("Gap", False, together(worker(healthy(gaps=3)), worker(healthy(gaps=3), instance="b")), blind()),
        ("NoProgress", True, worker(waiting()), None),
        # No worker is scraped, be it that none runs: the ingest's port says the same of the deployment.
        ("NoProgress", True, ingest(waiting()), None),
        ("NoProgress", False, ingest(waiting(received=20)), ingest(waiting())),
        ("NoProgress", False, worker(waiting(paused=Paused(before(hours=1), "me", "", False))), None),
        ("NoProgress", False, worker(waiting(lag=0)), None),
        ("WorkerDown", False, worker(), None),
        ("WorkerDown", False, together(blind(), ingest()), None),
        ("WorkerDown", True, silent(WORKER, "a:6066"), None),
        ("WorkerDown", True, together(worker(), silent(WORKER, "b:6066")), None),
        # compose's single worker is gone, and its name with it.
        ("WorkerDown", True, {}, None),
        ("WorkerDown", True, worker(healthy(processes=(*healthy().processes, LOST))), None),
        ("WorkerDown", False, worker(healthy(processes=(*healthy().processes, AGAIN, LOST))), None),
        ("MemoryPause", False, together(worker(), ingest()), None),
        ("MemoryPause", True, ingest(mode=Mode.MEMORY), None),
        ("StatusUnreadable", True, together(blind(), blind("b:6066")), None),
        ("StatusUnreadable", False, together(blind(), worker(instance="b:6066")), None),
    ],
)
def test_a_rule_fires_when_it_must_also_where_something_is_not_known(
    alert: str, is_fired: bool, now: Scrape, then: Scrape | None
) -> None:
    assert bool(fired(alert, now, then)) is is_fired


def test_a_worker_without_memory_is_one_alert_whichever_way_it_waits() -> None:
    waits, small = (fired("MemoryPause", worker(mode=mode)) for mode in (Mode.MEMORY, Mode.SMALL_BATCHES))
    assert waits == small != {}
    assert {("instance", "a:6066"), ("job", WORKER)} == set(next(iter(waits)))


def test_prometheus_and_grafana_find_what_compose_names() -> None:
    root = CONTRIB.parent
    compose = yaml.safe_load((root / "docker-compose.yml").read_text())
    for service in ("prometheus", "grafana"):
        assert compose["services"][service]["profiles"] == ["monitoring"]
        for volume in compose["services"][service]["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (root / source).is_dir(), volume
    scraped = yaml.safe_load((CONTRIB / "prometheus" / "prometheus.yml").read_text())
    assert [(CONTRIB / "prometheus" / name).is_file() for name in scraped["rule_files"]] == [True]
    worker = compose["services"]["python-backfill-worker"]["environment"]
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in scraped["scrape_configs"]}
    assert ports == {
        "atproto-streams-worker": int(worker["WORKER_WEB_PORT"]),
        "atproto-streams-ingest": int(worker["INGEST_WEB_PORT"]),
    }
    assert any('job="atproto-streams-worker"' in rule["expr"] for rule in RULES)
    cluster = set(
        re.findall(r"^  (python-backfill-worker[\w-]*):", (root / "docker-compose.cluster.yml").read_text(), re.M)
    )
    assert set(scraped["scrape_configs"][0]["dns_sd_configs"][0]["names"]) == cluster
    [source] = yaml.safe_load((CONTRIB / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {t["datasource"]["uid"] for panel in DASHBOARD["panels"] for t in panel["targets"]} == {source["uid"]}
