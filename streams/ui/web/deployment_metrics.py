"""The whole deployment in Prometheus' words, from its Status: the same at every port. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.status.model import Status
from streams.status.troubles import replaced
from streams.ui.web.metrics import PREFIX, gauge

_NAME: Final = f"{PREFIX}_deployment"


class DeploymentFigures(Collector):
    """One Status, for one scrape. None: it could not be read."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of the Status."""
        status = self._status
        yield from gauge(
            f"{_NAME}_up", "1 if Kafka and Postgres could be read for these figures.", float(status is not None)
        )
        if status is not None:
            yield from _counts(status)
            yield from _times(status)
            yield from _processes(status)


def _counts(status: Status) -> Iterator[Metric]:
    # No counters: a replay of dead letters moves them from one outcome to another, a swap brings another schema's.
    events = GaugeMetricFamily(
        f"{_NAME}_events", "Events of the topic that were dealt with, by what became of them.", labels=["outcome"]
    )
    for outcome, count in (("applied", status.applied), ("skipped", status.skipped), ("dead", status.dead)):
        events.add_metric([outcome], count)
    yield events
    yield from gauge(f"{_NAME}_received_events", "Events of the topic that were dealt with.", status.received)
    yield from gauge(f"{_NAME}_dead_letters", "Rows in dead_letters.", status.dead_letters)
    yield from gauge(
        f"{_NAME}_odd_claims",
        "Events about accounts that claim a time more than an hour from that of their place in the stream.",
        status.odd_claims,
    )
    yield from gauge(f"{_NAME}_gaps", "Rows in gaps.", status.gaps)
    yield from gauge(f"{_NAME}_lag_messages", "Messages in Kafka that are not in Postgres.", status.lag)
    yield from gauge(
        f"{_NAME}_left_seconds", "Seconds until everything is in Postgres, at this speed.", status.seconds_left
    )
    yield from gauge(f"{_NAME}_paused", "1 while the command pause is in effect.", float(status.paused is not None))
    yield from gauge(f"{_NAME}_troubles", "Troubles that the page shows.", len(status.troubles))
    offset = GaugeMetricFamily(f"{_NAME}_next_offset", "The offset that is applied next.", labels=["partition"])
    lag = GaugeMetricFamily(f"{_NAME}_partition_lag_messages", "Messages not in Postgres.", labels=["partition"])
    for partition in status.partitions:
        offset.add_metric([str(partition.partition)], partition.next_offset)
        lag.add_metric([str(partition.partition)], partition.lag)
    yield from (offset, lag)


def _times(status: Status) -> Iterator[Metric]:
    for name, text, moment in (
        ("covered_from", "The time from which the firehose is in Postgres.", status.covered_from),
        ("covered_to", "The time up to which the firehose is in Postgres.", status.covered_to),
        ("head", "The time of the relay's newest frame, when last asked.", status.head),
    ):
        yield from gauge(f"{_NAME}_{name}_timestamp_seconds", text, moment.timestamp() if moment is not None else None)


def _processes(status: Status) -> Iterator[Metric]:
    """Yield the number of live processes, and of lost ones that were not replaced."""
    family = GaugeMetricFamily(
        f"{_NAME}_processes", "Processes, by kind and whether they are there.", labels=["kind", "state"]
    )
    again = replaced(status.processes)
    for kind in ("worker", "ingest"):
        of_kind = [process for process in status.processes if process.kind == kind]
        down = [p for p in of_kind if not p.alive and p.ended_at is None and p not in again]
        family.add_metric([kind, "alive"], sum(process.alive for process in of_kind))
        family.add_metric([kind, "down"], len(down))
    yield family
