"""Every number of `/metrics`, in Prometheus' words: what is counted where it happens, and what is read when asked for.

Labels are model ids of models.yaml, states, reasons and codes of our own: nothing that a client writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.types import ModelKind, ModelState

# They double the page, for a time that nobody looks at; the library has no other switch.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

STATES: tuple[ModelState, ...] = get_args(ModelState)


@dataclass(frozen=True, kw_only=True)
class ModelReading:
    """One model as it is now.

    Attributes:
        num_restarts: Workers that were started after another one had died.
        resident_bytes: Memory of its worker; None without one.
        num_running, num_waiting: Requests that compute, and that wait to; None where the worker does not say.
        num_batches, num_batch_tokens: Steps or forward passes, and the tokens that they computed.
        num_padding_tokens: Of an encoder: what it computed besides.
        used_cells, num_cells: Of a chat model's KV cache: those that running requests hold, and all.
        num_prefix_tokens, num_prefix_hits: Prompt tokens that were looked up in the prefix cache, and found.
        num_preemptions: Sequences that lost their cells to others.
        num_drafted, num_accepted: Tokens that were computed ahead, and turned out right.
    """

    model_id: str
    kind: ModelKind
    state: ModelState
    num_restarts: int = 0
    resident_bytes: int | None = None
    num_running: int | None = None
    num_waiting: int | None = None
    num_batches: int | None = None
    num_batch_tokens: int | None = None
    num_padding_tokens: int | None = None
    used_cells: int | None = None
    num_cells: int | None = None
    num_prefix_tokens: int | None = None
    num_prefix_hits: int | None = None
    num_preemptions: int | None = None
    num_drafted: int | None = None
    num_accepted: int | None = None


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """One GPU as it is now; `busy_share` and `power_watts` are None where it does not tell."""

    index: int
    name: str
    used_bytes: int
    total_bytes: int
    busy_share: float | None = None
    power_watts: float | None = None


@dataclass(frozen=True, kw_only=True)
class ServerReading:
    """What is read of the server when somebody asks. Documents are those that wait for ingestion, or are in it."""

    models: tuple[ModelReading, ...] = ()
    gpus: tuple[GpuReading, ...] = ()
    num_live_requests: int = 0
    num_lost_records: int = 0
    num_documents_waiting: int = 0
    num_documents_running: int = 0


class ModelMetrics:
    """The counters of one model, looked up once."""

    def __init__(self, model_id: str, metrics: Metrics) -> None:
        self.ttft = metrics.ttft.labels(model_id)
        self.itl = metrics.itl.labels(model_id)
        self.queue = metrics.queue.labels(model_id)
        self.e2e = metrics.e2e.labels(model_id)
        self.generation_tokens = metrics.generation_tokens.labels(model_id)
        self._prompt_tokens = metrics.prompt_tokens.labels(model_id)
        self._cached_tokens = metrics.cached_tokens.labels(model_id)
        self._finished = {
            reason: metrics.finished.labels(model_id, reason) for reason in ("stop", "length", "tool_calls")
        }

    def count_prompt(self, num_tokens: int, num_cached: int) -> None:
        self._prompt_tokens.inc(num_tokens)
        self._cached_tokens.inc(num_cached)

    def finished(self, reason: str) -> Counter:
        return self._finished[reason]


class Metrics:
    """All metrics of one server, in a registry of its own.

    Attributes:
        read: Tells what is read when somebody asks; set once by whoever joins the objects.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.read: Callable[[], ServerReading] = ServerReading
        self.prompt_tokens = self._counter(
            "hearth_prompt_tokens", "Tokens of prompts and encoder inputs, those from a cache included.", "model"
        )
        self.cached_tokens = self._counter(
            "hearth_cached_prompt_tokens", "Tokens of prompts and encoder inputs that were not computed again.", "model"
        )
        self.generation_tokens = self._counter("hearth_generation_tokens", "Tokens of answers.", "model")
        self.finished = self._counter(
            "hearth_request_success", "Generations that ended well, by why they ended.", "model", "finished_reason"
        )
        self.requests = self._counter(
            "hearth_requests",
            "Requests that asked a model: completed, client_gone, or an error code.",
            "model",
            "status",
        )
        self.http_responses = self._counter(
            "hearth_http_responses", "Answers by HTTP status; 499: the client left first.", "status"
        )
        self.rejections = self._counter(
            "hearth_admission_rejections", "Requests that were turned away with 429 or 503, by error code.", "reason"
        )
        self.ttft = self._histogram(
            "hearth_time_to_first_token_seconds", "From the arrival of a generation to its first token.", _LATENCY_S
        )
        self.itl = self._histogram(
            "hearth_inter_token_latency_seconds", "Between pieces of an answer, per token.", _TOKEN_S
        )
        self.queue = self._histogram(
            "hearth_request_queue_time_seconds", "From a generation's arrival to its first step, without tokenising.",
            _LATENCY_S,
        )  # fmt: skip
        self.e2e = self._histogram(
            "hearth_e2e_request_latency_seconds", "From the head of a request to the last of its answer.", _LATENCY_S
        )
        self.loop_lag = Histogram(
            "hearth_event_loop_lag_seconds", "How late the API process's event loop is, looked at 20 times a second.",
            buckets=_LAG_S, registry=self.registry,
        )  # fmt: skip
        self.registry.register(_Readings(lambda: self.read()))  # noqa: PLW0108  # it may be set later
        ProcessCollector(namespace="hearth", registry=self.registry)

    def of_model(self, model_id: str) -> ModelMetrics:
        return ModelMetrics(model_id, self)

    def page(self) -> bytes:
        """All of it as text."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, help_text, ("model",), buckets=buckets, registry=self.registry)


class _Readings(Collector):
    """What is not counted here but read when asked for, of workers above all: theirs begin anew with each worker."""

    def __init__(self, read: Callable[[], ServerReading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        yield from _of_models(reading.models)
        yield from _of_gpus(reading.gpus)
        yield GaugeMetricFamily("hearth_live_requests", "HTTP requests that are not over.", reading.num_live_requests)
        lost = "Usage records that could not be kept: the disk was full for too long."
        yield CounterMetricFamily("hearth_usage_records_lost", lost, reading.num_lost_records)
        documents = GaugeMetricFamily(
            "hearth_ingestion_documents", "Documents on their way into a store.", labels=["state"]
        )
        documents.add_metric(["waiting"], reading.num_documents_waiting)
        documents.add_metric(["running"], reading.num_documents_running)
        yield documents


def _of_models(models: Iterable[ModelReading]) -> Iterator[Metric]:
    models = tuple(models)
    state = GaugeMetricFamily("hearth_model_state", "1 for the state that a model is in.", labels=["model", "state"])
    for each in models:
        for candidate in STATES:
            state.add_metric([each.model_id, candidate], float(each.state == candidate))
    yield state
    for name, help_text, pick in _GAUGES:
        yield _per_model(GaugeMetricFamily(name, help_text, labels=["model"]), models, pick)
    for name, help_text, pick in _COUNTERS:
        yield _per_model(CounterMetricFamily(name, help_text, labels=["model"]), models, pick)


Pick = Callable[[ModelReading], float | None]

_GAUGES: tuple[tuple[str, str, Pick], ...] = (
    ("hearth_num_requests_running", "Requests that a worker computes.", lambda m: m.num_running),
    ("hearth_num_requests_waiting", "Requests that wait in a worker.", lambda m: m.num_waiting),
    (
        "hearth_kv_cache_usage_ratio",
        "Cells of the KV cache that running requests hold, 0 to 1.",
        lambda m: None if not m.num_cells or m.used_cells is None else m.used_cells / m.num_cells,
    ),
    ("hearth_worker_resident_memory_bytes", "Memory of a model's worker.", lambda m: m.resident_bytes),
)

_COUNTERS: tuple[tuple[str, str, Pick], ...] = (
    ("hearth_worker_restarts", "Workers that died; another one is started in their place.", lambda m: m.num_restarts),
    ("hearth_batches", "Engine steps, or forward passes of an encoder.", lambda m: m.num_batches),
    ("hearth_batch_tokens", "Tokens that engine steps and forward passes computed.", lambda m: m.num_batch_tokens),
    ("hearth_padding_tokens", "What an encoder computed between tokens, for nothing.", lambda m: m.num_padding_tokens),
    ("hearth_prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", lambda m: m.num_prefix_tokens),
    ("hearth_prefix_cache_hits", "Prompt tokens that were found in the prefix cache.", lambda m: m.num_prefix_hits),
    ("hearth_preemptions", "Sequences that lost their cells and were computed again.", lambda m: m.num_preemptions),
    ("hearth_draft_tokens", "Tokens that were computed ahead, as drafts.", lambda m: m.num_drafted),
    ("hearth_draft_tokens_accepted", "Tokens computed ahead that turned out right.", lambda m: m.num_accepted),
)


def _per_model(
    family: GaugeMetricFamily | CounterMetricFamily, models: Iterable[ModelReading], pick: Pick
) -> GaugeMetricFamily | CounterMetricFamily:
    for each in models:
        value = pick(each)
        if value is not None:
            family.add_metric([each.model_id], value)
    return family


def _of_gpus(gpus: Iterable[GpuReading]) -> Iterator[Metric]:
    gpus = tuple(gpus)
    labels = ["gpu", "name"]
    used = GaugeMetricFamily("hearth_gpu_memory_used_bytes", "Memory of a GPU in use, by whomever.", labels=labels)
    total = GaugeMetricFamily("hearth_gpu_memory_total_bytes", "All memory of a GPU.", labels=labels)
    busy = GaugeMetricFamily("hearth_gpu_utilization_ratio", "How busy a GPU was lately, 0 to 1.", labels=labels)
    power = GaugeMetricFamily("hearth_gpu_power_watts", "What a GPU draws.", labels=labels)
    for gpu in gpus:
        values = [str(gpu.index), gpu.name]
        used.add_metric(values, gpu.used_bytes)
        total.add_metric(values, gpu.total_bytes)
        if gpu.busy_share is not None:
            busy.add_metric(values, gpu.busy_share)
        if gpu.power_watts is not None:
            power.add_metric(values, gpu.power_watts)
    yield from (used, total, busy, power)
