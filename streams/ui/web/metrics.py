"""This process for Prometheus: collectors that read its counters when scraped. Labels are few and bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from streams import __version__
from streams.status.process import INGEST_MODES, WORKER_MODES, MachineUse, MemoryUse, Mode
from streams.ui.web.figures import BUCKETS, Figures, IngestFigures, WorkerFigures

#: The beginning of every name.
PREFIX: Final = "atproto_streams"
_WORKER: Final = f"{PREFIX}_worker"
_INGEST: Final = f"{PREFIX}_ingest"


class ProcessFigures(Collector):
    """The collector of this process' figures."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def describe(self) -> list[Metric]:
        """Return nothing: the registry must not ask before there are figures."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the figures now."""
        figures = self._figures()
        yield InfoMetricFamily(f"{PREFIX}", "The version that runs.", {"version": __version__, "kind": figures.kind})
        if isinstance(figures, WorkerFigures):
            yield from _worker(figures)
        else:
            yield from _ingest(figures)


def gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """Yield a gauge; none while its value is not known."""
    if value is not None:
        yield GaugeMetricFamily(name, text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter; ``_total`` is appended."""
    return CounterMetricFamily(name, text, value=value)


def _worker(figures: WorkerFigures) -> Iterator[Metric]:
    state, durations = figures.state, figures.durations
    events = CounterMetricFamily(f"{_WORKER}_events", "Events dealt with, by what became of them.", labels=["outcome"])
    for outcome, count in (("applied", state.processed), ("skipped", state.skipped), ("dead", state.dead)):
        events.add_metric([outcome], count)
    yield events
    for name, text, value in (
        ("", "Transactions under way.", figures.transactions),
        ("_max", "Most transactions that were under way at once, since the start.", figures.most_transactions),
        ("_limit", "BACKFILL_MAX_CONCURRENT.", state.transactions_max),
    ):
        yield from gauge(f"{_WORKER}_transactions_in_flight{name}", text, value)
    seconds = HistogramMetricFamily(f"{_WORKER}_transaction_seconds", "How long transactions took, retries included.")
    below, buckets = 0, []
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), durations.counts, strict=True):
        below += count
        buckets.append((bound, below))
    seconds.add_metric([], buckets, durations.seconds)
    yield seconds
    yield counter(f"{_WORKER}_rebalances", "Times that Kafka assigned the partitions again.", figures.rebalances)
    yield from _partitions(figures)
    yield from _modes(
        f"{_WORKER}_mode", "Why it goes at the pace that it goes: 1 for the mode that holds.", WORKER_MODES, state.mode
    )
    yield from _memory(_WORKER, state.memory)
    yield from _machine(_WORKER, state.machine)


def _partitions(figures: WorkerFigures) -> Iterator[Metric]:
    offset = GaugeMetricFamily(f"{_WORKER}_next_offset", "The offset that is applied next.", labels=["partition"])
    lag = GaugeMetricFamily(f"{_WORKER}_lag_messages", "Messages that are not applied yet.", labels=["partition"])
    time = GaugeMetricFamily(
        f"{_WORKER}_watermark_timestamp_seconds", "Up to when the firehose is applied.", labels=["partition"]
    )
    for held in figures.held:
        name = [str(held.partition)]
        offset.add_metric(name, held.next_offset)
        if held.lag is not None:
            lag.add_metric(name, held.lag)
        if held.watermark is not None:
            time.add_metric(name, held.watermark.timestamp())
    yield from (offset, lag, time)


def _ingest(figures: IngestFigures) -> Iterator[Metric]:
    state = figures.state
    dead = CounterMetricFamily(f"{_INGEST}_dead_letters", "What could not be decoded, by its kind.", labels=["kind"])
    for kind, count in figures.dead.items():
        dead.add_metric([kind], count)
    yield dead
    yield counter(f"{_INGEST}_received_bytes", "Bytes of frames from the relay.", figures.received_bytes)
    yield counter(f"{_INGEST}_reconnects", "Connections to the relay after the first.", figures.reconnects)
    yield from gauge(
        f"{_INGEST}_unacknowledged_bytes", "Bytes that Kafka has not acknowledged.", figures.unacknowledged
    )
    yield from _modes(
        f"{_INGEST}_mode", "Why it goes at the pace that it goes: 1 for the mode that holds.",
        INGEST_MODES, state.mode if state is not None else Mode.STARTING,
    )  # fmt: skip
    if state is None:
        return
    yield counter(f"{_INGEST}_frames", "Frames from the relay.", state.frames)
    yield counter(f"{_INGEST}_events", "Events written to the topic.", state.events)
    yield counter(f"{_INGEST}_gaps", "Stretches that the relay left out.", state.gaps)
    yield counter(f"{_INGEST}_passed_over", "Frames of events that were taken before.", state.repeated)
    yield counter(f"{_INGEST}_out_of_order", "Frames that were taken although others had overtaken them.", state.late)
    yield from gauge(f"{_INGEST}_seq", "The relay's sequence number that was taken last.", state.seq)
    times = (
        ("position", "The time of the newest frame that was taken.", state.time),
        ("head", "The time of the relay's newest frame, when last asked.", state.head),
        ("oldest", "The time of the relay's oldest frame, when last asked.", state.oldest),
    )
    for name, text, moment in times:
        yield from gauge(
            f"{_INGEST}_{name}_timestamp_seconds", text, moment.timestamp() if moment is not None else None
        )
    yield from gauge(
        f"{_INGEST}_window_left_seconds", "Seconds until the relay drops what is needed next.", state.window_left
    )
    yield from gauge(f"{_INGEST}_left_seconds", "Seconds until the head, at this speed.", state.left)
    yield from _memory(_INGEST, state.memory)
    yield from _machine(_INGEST, state.machine)


def _modes(name: str, text: str, modes: Iterable[Mode], now: Mode) -> Iterator[Metric]:
    family = GaugeMetricFamily(name, text, labels=["mode"])
    for mode in modes:
        family.add_metric([mode.replace(" ", "_")], mode is now)
    yield family


def _memory(prefix: str, memory: MemoryUse) -> Iterator[Metric]:
    yield from gauge(f"{prefix}_memory_bytes", "Resident memory, when last looked at.", memory.rss)
    yield from gauge(f"{prefix}_memory_limit_bytes", "BACKFILL_MAX_MEMORY_MB.", memory.limit)
    yield from gauge(f"{prefix}_in_flight_bytes", "Bytes of events that are in flight.", memory.in_flight)
    yield from gauge(f"{prefix}_in_flight_limit_bytes", "Most bytes of events in flight.", memory.budget)


def _machine(prefix: str, machine: MachineUse | None) -> Iterator[Metric]:
    if machine is not None:
        yield from gauge(f"{prefix}_others_ratio", "The share of the machine's cores that others use.", machine.others)
        yield from gauge(f"{prefix}_machine_idle", "1 while the machine counts as idle.", float(machine.idle))
