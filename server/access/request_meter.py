"""Measures what one request makes models do, while they do it: for the ledger, the log, and whoever looks on.

A request's meter goes with it through all layers as a context variable: a search asks an embedding model and a
reranker, an answer from sources a chat model twice, and all of that belongs to the request that caused it. Work that
no request waits for, as ingestion is, has a meter that nobody reads.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from server.access.usage_record import RUNNING, ModelUse, UsageRecord
from server.caller import Caller
from server.config.schema import ModelConfig
from server.errors import RequestCancelled
from server.types import Finished, Prompt, Started

Stage = Literal["received", "queued", "prefill", "decode", "encoding", "answering"]
"""Where a request is: nothing was asked of a model yet; a chat model has it, has begun to read it (as far as is known),
or writes; an encoder has it; the models are done for now."""


@dataclass(slots=True)
class _Tally:
    """What one model has done so far."""

    config: ModelConfig
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class _SharedPrompt:
    """A prompt that siblings answer: it counts once, and what was cached of it is what the first of them found.

    Attributes:
        is_read: A model has begun to compute it.
    """

    prompt: Prompt
    is_read: bool = False
    num_tokens: int = 0
    num_cached: int | None = None


class ModelCall:
    """One thing that is asked of a model. Times are of `time.monotonic()`.

    Attributes:
        first_token_at, last_token_at: Of a generation; None before.
        num_tokens: That a generation has given so far.
        finish_reason: Of a generation that ended well.
    """

    def __init__(self, config: ModelConfig, tally: _Tally, prompt: _SharedPrompt | None) -> None:
        self.model_id, self.kind = config.id, config.kind
        self.begun_at = time.monotonic()
        self.ended_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.num_tokens = 0
        self.prompt_tokens = 0
        self.finish_reason: str | None = None
        self._tally = tally
        self._prompt = prompt

    # ---- a generation

    def note_started(self, event: Started) -> None:
        self._count_prompt(event.prompt_tokens, None)

    def note_begun(self) -> None:
        """The model computes the prompt from now on."""
        assert self._prompt is not None
        self._prompt.is_read = True
        self._count_prompt(self.prompt_tokens, None)

    def note_tokens(self, num_tokens: int, now: float) -> None:
        if num_tokens and self._prompt is not None:
            self._prompt.is_read = True  # not every model tells when it begins
        if self.first_token_at is None:
            self.first_token_at = now
        self.last_token_at = now
        self.num_tokens += num_tokens
        self._tally.completion_tokens += num_tokens

    def note_finished(self, event: Finished) -> None:
        """Take the model's own count in place of ours."""
        assert self._prompt is not None
        self.finish_reason, self._prompt.is_read = event.reason, True
        self._count_prompt(event.usage.prompt_tokens, event.usage.cached_tokens)
        self._tally.completion_tokens += event.usage.completion_tokens - self.num_tokens
        self.num_tokens = event.usage.completion_tokens

    def note_dropped(self) -> None:
        """It is given up: what has only waited costs nothing. A sibling that is begun later counts the prompt anew."""
        if self._prompt is not None and not self._prompt.is_read:
            self._tally.prompt_tokens -= self._prompt.num_tokens
            self._prompt.num_tokens = self.prompt_tokens = 0

    def _count_prompt(self, num_tokens: int, num_cached: int | None) -> None:
        shared, tally = self._prompt, self._tally
        assert shared is not None
        self.prompt_tokens = num_tokens
        longest = max(shared.num_tokens, num_tokens)
        tally.prompt_tokens += longest - shared.num_tokens
        shared.num_tokens = longest
        if num_cached is not None:
            least = num_cached if shared.num_cached is None else min(shared.num_cached, num_cached)
            tally.cached_tokens += least - (shared.num_cached or 0)
            shared.num_cached = least

    # ---- an encoder's work

    def note_encoded(self, prompt_tokens: int, cached_tokens: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self._tally.prompt_tokens += prompt_tokens
        self._tally.cached_tokens += cached_tokens


class RequestMeter:
    """All that models do for one request. On the event loop only.

    Args:
        find_caller: Tells who sent it; not to be known before its key was looked at.
        on_progress: Called when something has happened that is worth keeping.

    Attributes:
        id: Ours, and unique.
        stage: Where the request is now.
        calls: What was asked of models, in order.
        queue_ms, ttft_ms: Of the answer: of the generation that began when no other one ran, for the last time.
        is_closed: The request is over; what is done from now on is not for it.
    """

    def __init__(
        self,
        request_id: str = "",
        path: str = "",
        *,
        find_caller: Callable[[], Caller] = Caller,
        sender: str | None = None,
        on_progress: Callable[[RequestMeter], None] | None = None,
    ) -> None:
        self.id = f"use_{uuid.uuid4().hex}"
        self.request_id = request_id
        self.path = path
        self._find_caller = find_caller
        self.sender = sender
        self.at = time.time()
        self.started_at = time.monotonic()
        self.stage: Stage = "received"
        self.calls: list[ModelCall] = []
        self.queue_ms: float | None = None
        self.ttft_ms: float | None = None
        self.is_closed = False
        self.is_cancelled = False
        self._on_progress = on_progress
        self._tallies: dict[str, _Tally] = {}
        self._prompts: dict[int, _SharedPrompt] = {}
        self._num_generating = 0
        self._waiting: set[asyncio.Task[object]] = set()

    @property
    def caller(self) -> Caller:
        """Who sent it, as far as that is known yet."""
        return self._find_caller()

    # ---- what models do

    def begin(self, config: ModelConfig, prompt: Prompt | None = None) -> ModelCall:
        """Something is asked of a model; `prompt` where it generates.

        Raises:
            RequestCancelled: Somebody has cancelled the request.
        """
        self.check()
        tally = self._tallies.get(config.id)
        if tally is None:
            tally = self._tallies[config.id] = _Tally(config)
        shared = None
        self.stage = "encoding"
        if prompt is not None:
            # Siblings have one prompt in common, the very object, which is kept here: no other one gets its id.
            shared = self._prompts.setdefault(id(prompt), _SharedPrompt(prompt))
            self.stage = "queued"
            if self._num_generating == 0:  # whatever came before, e.g. queries, was for this one
                self.queue_ms = self.ttft_ms = None
            self._num_generating += 1
        call = ModelCall(config, tally, shared)
        self.calls.append(call)
        return call

    def note_started(self, call: ModelCall, event: Started) -> None:
        """The model has accepted a prompt."""
        call.note_started(event)
        self.stage = "prefill"
        if self.queue_ms is None:
            self.queue_ms = event.queue_ms
        self.note_progress()

    def note_first_token(self, now: float) -> None:
        self.stage = "decode"
        if self.ttft_ms is None:
            self.ttft_ms = (now - self.started_at) * 1000

    def note_finished(self, call: ModelCall, event: Finished) -> None:
        """A generation has ended well. Kept before the client can read of it."""
        call.note_finished(event)
        if event.timings is not None:
            self.queue_ms = event.timings.queue_ms
        self.note_progress()

    def end(self, call: ModelCall, now: float) -> None:
        """The model is done with it, or nobody waits for it any more."""
        call.ended_at = now
        if call.kind == "chat":
            self._num_generating -= 1
        self.stage = "answering"

    def note_progress(self) -> None:
        if self._on_progress is not None and not self.is_closed:  # what is over is kept as it was
            self._on_progress(self)

    def close(self) -> None:
        """The request is over. Whatever was begun in its context may live on; what it was asked need not."""
        self.is_closed = True
        self._prompts.clear()

    # ---- cancelling

    def cancel(self) -> None:
        """End what models do for the request; whoever waits for them gets RequestCancelled."""
        self.is_cancelled = True
        for task in self._waiting:
            task.cancel()

    def check(self) -> None:
        """Raises RequestCancelled if somebody has cancelled the request."""
        if self.is_cancelled:
            raise RequestCancelled("the request was cancelled by an operator of the server")

    def wait(self) -> asyncio.Task[object]:
        """This task waits for a model from now on, and only for that: it may be interrupted. Pairs with `resume`."""
        self.check()
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        return task

    def resume(self, task: asyncio.Task[object]) -> None:
        self._waiting.discard(task)

    def explain(self, task: asyncio.Task[object]) -> None:
        """Called with the cancellation of a task that waited: raises RequestCancelled if it was ours."""
        if self.is_cancelled:
            task.uncancel()
            self.check()

    # ---- what is known of it

    @property
    def num_completion_tokens(self) -> int:
        return sum(tally.completion_tokens for tally in self._tallies.values())

    @property
    def num_prompt_tokens(self) -> int:
        return sum(tally.prompt_tokens for tally in self._tallies.values())

    @property
    def answering(self) -> ModelCall | None:
        """The call that the answer comes from: the last generation, else the first thing that was asked."""
        generations = (call for call in reversed(self.calls) if call.kind == "chat")
        return next(generations, self.calls[0] if self.calls else None)

    @property
    def itl_ms(self) -> float | None:
        """Between two tokens of the answer, on the average."""
        call = self.answering
        if call is None or call.first_token_at is None or call.last_token_at is None or call.num_tokens < 2:
            return None
        return (call.last_token_at - call.first_token_at) * 1000 / (call.num_tokens - 1)

    def record(self, status: str = RUNNING) -> UsageRecord:
        """All of it as it stands."""
        return UsageRecord(
            id=self.id,
            at_ms=round(self.at * 1000),
            tenant=self.caller.tenant,
            key_id=self.caller.key_id,
            sender=self.sender,
            request_id=self.request_id,
            path=self.path,
            status=status,
            queue_ms=_rounded(self.queue_ms),
            ttft_ms=_rounded(self.ttft_ms),
            duration_ms=round((time.monotonic() - self.started_at) * 1000, 3),
            uses=tuple(map(_use_of, self._tallies.values())),
        )


def _use_of(tally: _Tally) -> ModelUse:
    prices = tally.config.prices
    return ModelUse(
        model=tally.config.id,
        kind=tally.config.kind,
        prompt_tokens=tally.prompt_tokens,
        cached_tokens=tally.cached_tokens,
        completion_tokens=tally.completion_tokens,
        input_price=prices.input,
        output_price=prices.output,
        cached_price=prices.cached_or_input,
    )


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


_current: ContextVar[RequestMeter | None] = ContextVar("request meter", default=None)


def current_meter() -> RequestMeter:
    """The meter of the request that this is done for; one that nobody reads if it is done for none, or that is over."""
    meter = _current.get()
    return RequestMeter() if meter is None or meter.is_closed else meter


def set_current_meter(meter: RequestMeter) -> None:
    """Everything that this task does from now on, and tasks that it starts, is done for this request."""
    _current.set(meter)
