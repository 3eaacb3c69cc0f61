"""What models do is measured for the request that caused it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from server.access.metered_model import MeteredModel
from server.access.request_meter import RequestMeter, set_current_meter
from server.config.schema import ModelConfig
from server.errors import DeadlineExceeded, HearthError, RequestCancelled, WorkerCrashed
from server.telemetry.metrics import Metrics
from server.types import ChatPrompt, Delta, GenerateRequest, ModelFacts, SamplingParams, Started
from tests.fakes.models import FakeChatModel, FakeEmbedder, FakeReranker, Step, saying

CHAT = ModelConfig(id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf")
RERANK = ModelConfig(id="ranker", kind="rerank", backend="sentence_transformers", source="file:x")


@pytest.fixture
def meter() -> RequestMeter:
    meter = RequestMeter("r1", "/v1/chat/completions")
    set_current_meter(meter)
    return meter


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def metered(model: Any, metrics: Metrics, config: ModelConfig = CHAT) -> MeteredModel:
    return MeteredModel(model, config, metrics.of_model(config.id))


def request() -> GenerateRequest:
    return GenerateRequest(request_id="g1", prompt=ChatPrompt(()), sampling=SamplingParams())


async def read(model: MeteredModel) -> list[object]:
    async with aclosing(model.generate(request())) as events:
        return [event async for event in events]


def counted(meter: RequestMeter) -> list[tuple[str, int, int, int]]:
    uses = meter.record().uses
    return [(use.model, use.prompt_tokens, use.cached_tokens, use.completion_tokens) for use in uses]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def test_an_answer_passes_unchanged_and_is_counted(meter: RequestMeter, metrics: Metrics) -> None:
    model = FakeChatModel(steps=saying("Hello", " there", prompt_tokens=5))

    events = await read(metered(model, metrics))

    assert events == [*model.steps]
    assert counted(meter) == [("talker", 5, 2, 2)]
    assert value(metrics.registry, "hearth_prompt_tokens_total", model="talker") == 5
    assert value(metrics.registry, "hearth_generation_tokens_total", model="talker") == 2
    assert value(metrics.registry, "hearth_request_success_total", model="talker", finished_reason="stop") == 1
    assert value(metrics.registry, "hearth_time_to_first_token_seconds_count", model="talker") == 1
    assert value(metrics.registry, "hearth_inter_token_latency_seconds_count", model="talker") == 1


async def test_progress_is_kept_before_anybody_hears_of_it(metrics: Metrics) -> None:
    kept: list[tuple[int, int]] = []
    meter = RequestMeter(on_progress=lambda each: kept.append((each.num_prompt_tokens, each.num_completion_tokens)))
    set_current_meter(meter)
    model = FakeChatModel(steps=saying("Hello", " there", prompt_tokens=5))

    async with aclosing(metered(model, metrics).generate(request())) as events:
        heard = [(type(event).__name__, list(kept)) async for event in events]

    assert heard[0] == ("Started", [(5, 0)])
    assert heard[-1] == ("Finished", [(5, 0), (5, 2)])


@pytest.mark.parametrize("error", [WorkerCrashed("it died"), RuntimeError("a bug")])
async def test_what_a_worker_did_before_it_died_is_counted(
    meter: RequestMeter, metrics: Metrics, error: Exception
) -> None:
    steps: tuple[Step, ...] = (Started(5), Delta("a"), Delta("b", num_tokens=3), error)

    with pytest.raises(type(error)):
        await read(metered(FakeChatModel(steps=steps), metrics))

    assert counted(meter) == [("talker", 5, 0, 4)]


async def test_a_request_that_was_dropped_in_the_queue_has_computed_nothing(
    meter: RequestMeter, metrics: Metrics
) -> None:
    with pytest.raises(DeadlineExceeded):
        await read(metered(FakeChatModel(steps=(Started(5), DeadlineExceeded("too late"))), metrics))

    assert counted(meter) == [("talker", 0, 0, 0)]


async def test_a_prompt_whose_time_is_over_while_it_is_read_has_been_read(
    meter: RequestMeter, metrics: Metrics
) -> None:
    """Else whoever allows a little less time than the prompt takes has it computed for nothing, again and again."""
    steps = (Started(5), Started(5, has_begun=True), DeadlineExceeded("too late"))

    with pytest.raises(DeadlineExceeded):
        await read(metered(FakeChatModel(steps=steps), metrics))

    assert counted(meter) == [("talker", 5, 0, 0)]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_what_was_asked_of_an_encoder_counts_roughly_when_it_is_cut(
    meter: RequestMeter, metrics: Metrics, *, is_cancelled: bool
) -> None:
    late = DeadlineExceeded("too late")
    model = FakeEmbedder(gate=asyncio.Event() if is_cancelled else None, error=None if is_cancelled else late)
    model.facts = ModelFacts(context_length=50)
    embedding = asyncio.create_task(metered(model, metrics).embed(["x" * 40, "x" * 4000]))
    await asyncio.wait_for(model.begun.wait(), timeout=5)

    embedding.cancel()

    with pytest.raises(asyncio.CancelledError if is_cancelled else DeadlineExceeded):
        await embedding
    assert counted(meter) == [("talker", 11 + 50, 0, 0)]


async def test_a_pair_that_is_cut_counts_with_its_query(meter: RequestMeter, metrics: Metrics) -> None:
    model = FakeReranker(error=DeadlineExceeded("too late"))

    with pytest.raises(DeadlineExceeded):
        await metered(model, metrics, RERANK).rerank("x" * 4, ["x" * 8, "x" * 12])

    assert counted(meter) == [("ranker", (2 + 3) + (2 + 4), 0, 0)]


@pytest.mark.parametrize("error", [DeadlineExceeded("it does not load"), WorkerCrashed("it died")])
async def test_what_an_encoder_was_not_asked_or_lost_costs_nothing(
    meter: RequestMeter, metrics: Metrics, error: HearthError
) -> None:
    model = FakeEmbedder(state="loading", error=error)

    with pytest.raises(type(error)):
        await metered(model, metrics).embed(["abc"])

    assert counted(meter) == [("talker", 0, 0, 0)]


async def test_a_client_that_leaves_has_used_what_it_saw(meter: RequestMeter, metrics: Metrics) -> None:
    model = FakeChatModel(steps=(Started(5), Delta("a"), asyncio.Event()))

    async with aclosing(metered(model, metrics).generate(request())) as events:
        await anext(events)
        await anext(events)

    assert counted(meter) == [("talker", 5, 0, 1)]
    assert model.aborted == ["g1"]
    assert meter.stage == "answering"


@pytest.mark.parametrize(
    ("more", "num_tokens"),
    [((), 0), ((Delta("the prompt", num_tokens=0),), 0), ((Started(5, has_begun=True),), 5)],
    ids=["waits", "echoes", "begun"],
)
@pytest.mark.parametrize("is_cancelled", [True, False], ids=["leaves", "is cancelled"])
async def test_whoever_goes_before_the_first_token_has_used_what_was_begun(
    meter: RequestMeter, metrics: Metrics, more: tuple[Step, ...], num_tokens: int, *, is_cancelled: bool
) -> None:
    waits = asyncio.Event()
    model = FakeChatModel(steps=(Started(5), *more, waits))
    heard: list[object] = []

    async def listen() -> None:
        async with aclosing(metered(model, metrics).generate(request())) as events:
            async for event in events:
                heard.append(event)  # noqa: PERF401  # what was heard before it is cut

    reading = asyncio.create_task(listen())
    await asyncio.wait_for(model.begun.wait(), timeout=5)
    meter.cancel() if is_cancelled else reading.cancel()

    with pytest.raises((RequestCancelled, asyncio.CancelledError)):
        await reading
    assert heard == [Started(5), *(each for each in more if isinstance(each, Delta))]
    assert counted(meter) == [("talker", num_tokens, 0, 0)]


async def test_encoders_count_too(meter: RequestMeter, metrics: Metrics) -> None:
    embedder, reranker = metered(FakeEmbedder(), metrics), metered(FakeReranker(), metrics, RERANK)

    await embedder.embed(["abc", "de"])
    await reranker.rerank("q", ["abc", "abc"])

    assert counted(meter) == [("talker", 5, 0, 0), ("ranker", 6, 3, 0)]
    assert value(metrics.registry, "hearth_cached_prompt_tokens_total", model="ranker") == 3


async def test_work_for_no_request_is_in_the_metrics_alone(metrics: Metrics) -> None:
    await metered(FakeEmbedder(), metrics).embed(["abc"])

    assert value(metrics.registry, "hearth_prompt_tokens_total", model="talker") == 3


async def test_a_cancelled_answer_ends_with_an_error(meter: RequestMeter, metrics: Metrics) -> None:
    model = FakeChatModel(steps=(Started(5), Delta("a"), asyncio.Event()))
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def listen() -> None:
        async with aclosing(metered(model, metrics).generate(request())) as events:
            async for event in events:
                heard.put_nowait(event)

    reading = asyncio.create_task(listen())
    while not isinstance(await asyncio.wait_for(heard.get(), timeout=5), Delta):
        pass

    meter.cancel()

    with pytest.raises(RequestCancelled):
        await reading
    assert model.aborted == ["g1"]
    assert counted(meter) == [("talker", 5, 0, 1)]


async def test_a_cancelled_embedding_ends_with_an_error(meter: RequestMeter, metrics: Metrics) -> None:
    model = FakeEmbedder(gate=asyncio.Event())
    embedding = asyncio.create_task(metered(model, metrics).embed(["a"]))
    await asyncio.wait_for(model.begun.wait(), timeout=5)

    meter.cancel()

    with pytest.raises(RequestCancelled):
        await embedding
    assert model.cancelled.is_set()


async def test_a_cancellation_by_others_stays_what_it_is(meter: RequestMeter, metrics: Metrics) -> None:
    model = FakeEmbedder(gate=asyncio.Event())
    embedding = asyncio.create_task(metered(model, metrics).embed(["a"]))
    await asyncio.wait_for(model.begun.wait(), timeout=5)

    embedding.cancel()

    with pytest.raises(asyncio.CancelledError):
        await embedding


async def test_a_reader_that_is_busy_elsewhere_hears_of_it_when_it_asks_again(
    meter: RequestMeter, metrics: Metrics
) -> None:
    """A slow client: its task must not be interrupted while it writes."""
    model = FakeChatModel(steps=saying("a", "b"))

    async with aclosing(metered(model, metrics).generate(request())) as events:
        await anext(events)
        meter.cancel()
        with pytest.raises(RequestCancelled):
            await anext(events)
