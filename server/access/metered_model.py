"""A served model whose work is measured: for the request that it is done for, and for the metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Protocol, TypeVar

from server.access.prompt_trace import PromptTrace
from server.access.request_meter import ModelCall, RequestMeter, current_meter
from server.config.schema import ModelConfig
from server.errors import DeadlineExceeded, RequestCancelled
from server.protocols import ChatModel, EmbeddingModel, EmbeddingResult, RerankModel, RerankResult
from server.telemetry.metrics import ModelMetrics
from server.token_guess import num_input_tokens
from server.types import (
    ChatPrompt,
    Delta,
    EncoderCounts,
    Finished,
    GenerateRequest,
    Lane,
    LoadProgress,
    ModelFacts,
    ModelState,
    Prompt,
    RenderedPrompt,
    Started,
    Token,
    TokenIds,
    Truncate,
)

Result = TypeVar("Result")


class AnyModel(ChatModel, EmbeddingModel, RerankModel, Protocol):
    """What serves a model of whatever kind; what is not of its kind is never asked."""


class MeteredModel:
    """Passes on what is asked of a model, and takes down what came of it.

    Only what computes is measured: to count tokens or to render a template is nobody's usage.

    Args:
        traces_prompts: Write conversations and answers into the log.
    """

    def __init__(
        self, model: AnyModel, config: ModelConfig, metrics: ModelMetrics, *, traces_prompts: bool = False
    ) -> None:
        self._model = model
        self._traces_prompts = traces_prompts
        self._config = config
        self._metrics = metrics

    # ---- as the model is

    @property
    def state(self) -> ModelState:
        return self._model.state

    @property
    def failure(self) -> str | None:
        return self._model.failure

    @property
    def facts(self) -> ModelFacts | None:
        return self._model.facts

    @property
    def encoded(self) -> EncoderCounts | None:
        return self._model.encoded

    @property
    def num_requests(self) -> int:
        return self._model.num_requests

    @property
    def progress(self) -> LoadProgress | None:
        return self._model.progress

    @property
    def waiting_for(self) -> str | None:
        return self._model.waiting_for

    @property
    def loads_on_demand(self) -> bool:
        return self._model.loads_on_demand

    @property
    def memory_bytes(self) -> int | None:
        return self._model.memory_bytes

    @property
    def idle_s(self) -> float | None:
        return self._model.idle_s

    async def token_ids(self, inputs: Sequence[str | Prompt]) -> list[TokenIds]:
        return await self._model.token_ids(inputs)

    async def render(self, prompt: ChatPrompt) -> RenderedPrompt:
        return await self._model.render(prompt)

    async def token_pieces(self, token_ids: TokenIds) -> list[bytes]:
        return await self._model.token_pieces(token_ids)

    async def tokenize(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[Token]]:
        return await self._model.tokenize(texts, add_special_tokens=add_special_tokens)

    # ---- what is measured

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        meter = current_meter()
        call = meter.begin(self._config, request.prompt)
        trace = PromptTrace(request) if self._traces_prompts else None
        try:
            async with aclosing(self._model.generate(request)) as events:
                waiting = meter.wait()
                try:
                    async for event in events:
                        meter.resume(waiting)
                        self._note(meter, call, event, request)
                        if trace is not None and isinstance(event, Delta):
                            trace.add(event)
                        if not (isinstance(event, Started) and event.has_begun):  # which was for us
                            yield event
                        waiting = meter.wait()  # whoever asks for the next event may be another task
                except asyncio.CancelledError:
                    meter.explain(waiting)
                    raise
                finally:
                    meter.resume(waiting)
        except (DeadlineExceeded, RequestCancelled, asyncio.CancelledError, GeneratorExit):
            call.note_dropped()
            raise
        finally:
            meter.end(call, time.monotonic())
            if trace is not None:
                trace.write()

    async def embed(
        self,
        inputs: Sequence[str] | Sequence[TokenIds],
        *,
        truncate: Truncate = "error",
        prompt: str | None = None,
        lane: Lane = "interactive",
        normalize: bool = True,
    ) -> EmbeddingResult:
        meter = current_meter()
        call = meter.begin(self._config)
        asked = self._model.embed(inputs, truncate=truncate, prompt=prompt, lane=lane, normalize=normalize)
        with self._counted_if_cut(call, lambda: (num_input_tokens([each]) for each in inputs)):
            result = await _measured(meter, call, asked)
        call.note_encoded(result.num_prompt_tokens)
        self._metrics.count_prompt(result.num_prompt_tokens, 0)
        return result

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: Truncate = "error",
        lane: Lane = "interactive",
        max_tokens_per_doc: int | None = None,
        timeout_s: float | None = None,
    ) -> RerankResult:
        meter = current_meter()
        call = meter.begin(self._config)
        asked = self._model.rerank(
            query,
            documents,
            truncate=truncate,
            lane=lane,
            max_tokens_per_doc=max_tokens_per_doc,
            timeout_s=timeout_s,
        )
        with self._counted_if_cut(call, lambda: (num_input_tokens([query, each]) for each in documents)):
            result = await _measured(meter, call, asked)
        call.note_encoded(result.num_prompt_tokens, result.num_cached_tokens)
        self._metrics.count_prompt(result.num_prompt_tokens, result.num_cached_tokens)
        return result

    @contextmanager
    def _counted_if_cut(self, call: ModelCall, guess: Callable[[], Iterable[int]]) -> Iterator[None]:
        """Count what an encoder was asked, roughly, where nobody waits for its answer any more: how far it has got it
        does not say, and to ask for much and leave shall not be free.

        Args:
            guess: Returns the tokens of each input.
        """
        try:
            yield
        except (asyncio.CancelledError, RequestCancelled, DeadlineExceeded):
            if self._model.state == "ready":  # else it was waited for, and has not been asked yet
                counts, facts = guess(), self._model.facts
                if facts is not None:
                    counts = (min(each, facts.context_length) for each in counts)
                call.note_encoded(sum(counts))
            raise

    # ---- a generation

    def _note(
        self, meter: RequestMeter, call: ModelCall, event: Started | Delta | Finished, request: GenerateRequest
    ) -> None:
        if isinstance(event, Delta):
            now = time.monotonic()
            if call.last_token_at is None:
                meter.note_first_token(now)
                self._metrics.ttft.observe(now - request.arrived_at)
            elif event.num_tokens:
                self._metrics.itl.observe((now - call.last_token_at) / event.num_tokens)
            call.note_tokens(event.num_tokens, now)
        elif isinstance(event, Started) and event.has_begun:
            call.note_begun()
        elif isinstance(event, Started):
            meter.note_started(call, event)
        else:
            meter.note_finished(call, event)
            usage, timings = event.usage, event.timings
            self._metrics.count_prompt(usage.prompt_tokens, usage.cached_tokens)
            self._metrics.generation_tokens.inc(usage.completion_tokens)
            self._metrics.finished(event.reason).inc()
            if timings is not None:
                self._metrics.queue.observe(timings.queue_ms / 1000)


async def _measured(meter: RequestMeter, call: ModelCall, asked: Awaitable[Result]) -> Result:
    """Wait for what is asked of an encoder."""
    waiting = meter.wait()
    try:
        return await asked
    except asyncio.CancelledError:
        meter.explain(waiting)
        raise
    finally:
        meter.resume(waiting)
        meter.end(call, time.monotonic())
