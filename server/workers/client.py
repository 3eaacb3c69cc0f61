"""The API process's view of one model: sends requests to its worker and hands the answers back.

Lives as long as its model is configured; workers come and go behind it. The keeper attaches a channel when a worker is
ready and detaches it when that worker ends, which ends every request in flight with an error: each request ends once.
A model that is configured anew gets a new client, the heir, to which requests go that still come to the old one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from copy import copy

import msgspec
import numpy as np

from server.asker import current_asker
from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import (
    DeadlineExceeded,
    HearthError,
    ModelLoading,
    ModelUnavailable,
    NoRoom,
    WorkerCrashed,
    from_code,
)
from server.protocols import EmbeddingResult, RerankResult
from server.token_guess import num_input_tokens, num_prompt_tokens
from server.types import (
    ChatPrompt,
    Delta,
    EncoderCounts,
    EngineCounts,
    Failed,
    Finished,
    GenerateRequest,
    Lane,
    LoadProgress,
    ModelFacts,
    ModelKind,
    ModelState,
    Prompt,
    RenderedPrompt,
    Started,
    StreamEvent,
    Token,
    TokenIds,
    Truncate,
)
from server.workers.backlog import MAX_RETRY_AFTER_S, Backlog, Held
from server.workers.channel import ParentChannel
from server.workers.cpu_split import CpuSplit
from server.workers.messages import (
    Abort,
    Begun,
    BulkShare,
    Embed,
    Embedded,
    FromWorker,
    Generate,
    Heartbeat,
    PiecesTold,
    Render,
    Rendered,
    Reply,
    RequestFailed,
    Rerank,
    Reranked,
    StepOutput,
    TellPieces,
    TellTokenIds,
    TokenIdsTold,
    Tokenize,
    Tokenized,
    ToWorker,
    WeightsRead,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2
"""What clients are told when a worker died: restarting takes about as long as loading a small model."""

RETRY_LOADING_AFTER_S = 5
"""What clients are told when nobody knows how long a load takes."""

RETRY_FAILED_AFTER_S = 30
"""What clients are told when a model has failed: the first request after this makes it try once more."""

_OneAnswer = Embedded | Reranked | Tokenized | Reply | RequestFailed
_Answer = StreamEvent | Begun | _OneAnswer | HearthError


class _NeverBegun(WorkerCrashed):
    """The worker died while the request waited in it: it had been read, and was not computed."""


class WorkerClient:
    """Implements `ChatModel`, `EmbeddingModel` and `RerankModel` (whichever the model is) over one worker.

    Args:
        request_load: Called when a request needs a model that is not loaded, or has failed; returns at once. Whether
            a failed model is tried again is for it to decide.
        cpu_split: Shared by the models of a server; None: this model shares the processor with nobody.

    Attributes:
        on_idle: Called when the last request in flight has ended.
        last_used: When that was, or when the model got ready, on the monotonic clock.
        waiting_for: What keeps a load from going on, for people; None if nothing does.
        loads_on_demand: It is not meant to be in memory now: the next request loads it.
        memory_bytes: Of the machine's memory, what the worker held when it was last measured; None without one.
        load_took_s: From when there was room for it until it was ready, the last time.
        generated: What the engine of a chat model has done since its worker was started; None without worker.
        num_computing, num_waiting: What the worker has in hand.
    """

    def __init__(
        self,
        config: ModelConfig,
        limits: Limits,
        *,
        request_load: Callable[[], None],
        cpu_split: CpuSplit | None = None,
    ) -> None:
        self._config = config
        self._limits = limits
        self._request_load = request_load
        self._cpu_split = cpu_split or CpuSplit(bulk_share=1.0)
        self._is_chatting = False  # as far as the split has been told
        if config.kind != "chat":
            self._cpu_split.listen(self._send_bulk_share)
        self._channel: ParentChannel | None = None
        self._answers: dict[str, asyncio.Queue[_Answer]] = {}
        # Generations that the worker has read, and that it has begun, as far as it has said so.
        self._read: set[str] = set()
        self._begun: set[str] = set()
        self._state_changed = asyncio.Event()
        life = secrets.token_hex(4)  # a request keeps its id when it goes to the heir
        self._ids = (f"{life}-{number}" for number in itertools.count())
        self._state: ModelState = "unloaded"
        self._failure: str | None = None
        self._facts: ModelFacts | None = None
        self.encoded: EncoderCounts | None = None  # as of the last heartbeat, as is what follows
        self.generated: EngineCounts | None = None
        self.num_computing = self.num_waiting = 0
        self._backlog = Backlog(config.id, limits, num_places=config.max_sequences if config.kind == "chat" else None)
        self.on_idle: Callable[[], None] = lambda: None
        self.last_used = time.monotonic()
        self.waiting_for: str | None = None
        self.loads_on_demand = config.lazy
        self.memory_bytes: int | None = None
        self.load_took_s = 0.0
        self._all_answered = asyncio.Event()
        self._has_room = False
        self._refusal: NoRoom | None = None  # of the last load
        self._is_closed = False
        self._heir: WorkerClient | None = None
        self._load_began = 0.0
        self._expected_load_s: float | None = None
        self._weights_fraction: float | None = None

    # ---- what everybody may see

    @property
    def kind(self) -> ModelKind:
        return self._config.kind

    @property
    def state(self) -> ModelState:
        return self._state

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def facts(self) -> ModelFacts | None:
        return self._facts

    @property
    def num_requests(self) -> int:
        """Requests in flight, those that wait for the model to load included."""
        return self._backlog.num_requests

    @property
    def progress(self) -> LoadProgress | None:
        if self._state != "loading":
            return None
        return LoadProgress(
            elapsed_s=time.monotonic() - self._load_began,
            expected_s=self._expected_load_s,
            weights_fraction=self._weights_fraction,
        )

    @property
    def idle_s(self) -> float | None:
        if self._state != "ready" or self.num_requests:
            return None
        return time.monotonic() - self.last_used

    # ---- requests

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        size = num_prompt_tokens(request.prompt)
        with self._admitted(size, max_answer_tokens=_max_answer_tokens(request)) as held:
            is_over, num_told, may_begin_again = False, 0, True
            started = Started(0)
            heir: WorkerClient | None = None
            while not is_over:
                heir = await self._wait_until_ready(deadline_at=_deadline_of(request))
                if heir is not None:
                    break
                answers = self._open(request.request_id)
                try:
                    self._send(Generate(request))
                    while not is_over:
                        event = await answers.get()
                        if isinstance(event, _NeverBegun) and may_begin_again and num_told <= 1:
                            may_begin_again = False  # in two crashes: then it may have its part in them
                            break
                        if isinstance(event, HearthError | Failed):
                            is_over = True
                            raise event if isinstance(event, HearthError) else _error_of(event)
                        if isinstance(event, Begun):
                            yield msgspec.structs.replace(started, has_begun=True)
                            continue
                        assert isinstance(event, Started | Delta | Finished)
                        if isinstance(event, Started):
                            started = event
                        is_over = isinstance(event, Finished)
                        self._note(held, event)
                        if num_told == 0 or not isinstance(event, Started):
                            num_told += 1
                            yield event
                finally:
                    self._close(request.request_id, abort=not is_over)
        if heir is not None:
            async with aclosing(heir.generate(request)) as events:
                async for event in events:
                    if num_told == 0 or not isinstance(event, Started) or event.has_begun:
                        num_told += 1
                        yield event

    def _note(self, held: Held, event: Started | Delta | Finished) -> None:
        """What an event says about what waits."""
        if isinstance(event, Started):
            self._backlog.resize(held, event.prompt_tokens)
            return
        if held.num_tokens:
            self._backlog.resize(held, 0)
        if isinstance(event, Finished):
            self._backlog.learn(event.usage.prompt_tokens, num_cached=event.usage.cached_tokens)
            self._backlog.learn_answer(event.usage.completion_tokens)

    async def token_ids(self, inputs: Sequence[str | Prompt]) -> list[TokenIds]:
        request_id = f"token-ids-{next(self._ids)}"
        message = TellTokenIds(request_id, list(inputs))
        answer = await self._ask(request_id, lambda: message)
        assert isinstance(answer, TokenIdsTold)
        return answer.token_ids

    async def render(self, prompt: ChatPrompt) -> RenderedPrompt:
        message = Render(f"render-{next(self._ids)}", prompt)
        answer = await self._ask(message.request_id, lambda: message)
        assert isinstance(answer, Rendered)
        return answer.prompt

    async def token_pieces(self, token_ids: TokenIds) -> list[bytes]:
        message = TellPieces(f"pieces-{next(self._ids)}", token_ids)
        answer = await self._ask(message.request_id, lambda: message)
        assert isinstance(answer, PiecesTold)
        return answer.pieces

    async def embed(
        self,
        inputs: Sequence[str] | Sequence[TokenIds],
        *,
        truncate: Truncate = "error",
        prompt: str | None = None,
        lane: Lane = "interactive",
        normalize: bool = True,
    ) -> EmbeddingResult:
        request_id, asker = f"embed-{next(self._ids)}", current_asker()
        message = Embed(
            request_id, list(inputs), truncate, prompt, lane, normalize, tenant=asker.tenant, weight=asker.weight
        )
        answer = await self._ask(request_id, lambda: message, num_tokens=num_input_tokens(inputs), lane=lane)
        assert isinstance(answer, Embedded)
        self._backlog.learn(len(inputs), num_cached=answer.num_cached)
        vectors = np.frombuffer(answer.vectors, "<f4").reshape(len(inputs), answer.dimensions).copy()
        return EmbeddingResult(vectors, answer.num_prompt_tokens, answer.num_truncated, answer.num_cached)

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
        request_id, asker = f"rerank-{next(self._ids)}", current_asker()
        deadline_at = math.inf if timeout_s is None else time.monotonic() + timeout_s

        def message() -> Rerank:
            left_s = None if timeout_s is None else max(0.0, deadline_at - time.monotonic())
            return Rerank(
                request_id,
                query,
                list(documents),
                truncate,
                lane,
                max_tokens_per_doc,
                left_s,
                tenant=asker.tenant,
                weight=asker.weight,
            )

        num_tokens = num_input_tokens(documents) + len(documents) * num_input_tokens([query])
        answer = await self._ask(request_id, message, deadline_at=deadline_at, num_tokens=num_tokens, lane=lane)
        assert isinstance(answer, Reranked)
        self._backlog.learn(answer.num_prompt_tokens, num_cached=answer.num_cached_tokens)
        scores = np.frombuffer(answer.scores, "<f4").copy()
        return RerankResult(
            scores, answer.num_prompt_tokens, answer.num_truncated, answer.num_cached, answer.num_cached_tokens
        )

    async def tokenize(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[Token]]:
        request_id = f"tokenize-{next(self._ids)}"
        message = Tokenize(request_id, list(texts), add_special_tokens)
        answer = await self._ask(request_id, lambda: message)
        assert isinstance(answer, Tokenized)
        return answer.tokens

    # ---- for the keeper

    def set_state(self, state: ModelState, *, failure: str | None = None) -> None:
        if state == "loading":
            self._load_began, self._weights_fraction = time.monotonic(), None
        elif state == "unloaded":
            self.loads_on_demand = True
        self._state, self._failure = state, failure
        self._notify()

    def begin_load(self) -> None:
        """The model is to be loaded, as soon as there is room for it."""
        self._has_room, self._refusal, self.waiting_for = False, None, None
        self.set_state("loading")

    def note_room(self) -> None:
        """The load that has begun has found room: now it takes its time."""
        self._has_room = True
        self._load_began = time.monotonic()
        self._notify()

    def expect_load(self, load_s: float | None) -> None:
        """Take note of how long the load that has begun took the last time."""
        self._expected_load_s = load_s

    def refuse(self, error: NoRoom) -> None:
        """The model is not loaded now: whoever waits for it hears why, and the next request asks for it again."""
        self._refusal, self.waiting_for = error, error.message
        self.set_state("unloaded")
        self.loads_on_demand = error.may_pass

    def close(self) -> None:
        """The model is not served any more: what waits, and what comes, ends with an error, or goes to the heir."""
        self._is_closed = True
        self.set_state("draining")

    def hand_over(self, heir: WorkerClient) -> None:
        """From now on, requests go to another client; unless its vectors would be others than whoever asks expects."""
        mine, its = self._facts, heir.facts
        has_other_vectors = mine is not None and (its is None or mine.fingerprint != its.fingerprint)
        if heir.kind == self.kind and not (self.kind == "embedding" and has_other_vectors):
            self._heir = heir
            self._notify()

    async def settled(self) -> ModelState:
        """Wait until a load has come to its end: `ready`, `failed`, or `unloaded` where it was refused."""
        while self._state not in ("ready", "failed", "unloaded") and not self._is_closed:
            await self._state_changed.wait()
        return self._state

    async def admitted(self) -> None:
        """Wait until the load that has begun has found room.

        Raises:
            NoRoom: There is none for it.
        """
        while self._state == "loading" and not self._has_room:
            await self._state_changed.wait()
        if self._state == "unloaded" and self._refusal is not None:
            raise copy(self._refusal)

    async def all_answered(self) -> None:
        """Wait until the worker has nothing in hand."""
        while self._answers:
            self._all_answered.clear()
            await self._all_answered.wait()

    def attach(self, channel: ParentChannel, facts: ModelFacts) -> None:
        """A worker is ready: requests go to it from now on, unless it is being ended."""
        if self._state == "draining":
            return
        self._channel, self._facts = channel, facts
        self.last_used = time.monotonic()
        self.load_took_s = round(self.last_used - self._load_began, 3) if self._state == "loading" else 0.0
        self.loads_on_demand = False
        self.set_state("ready")
        if self._config.kind != "chat":
            self._send_bulk_share(self._cpu_split.share)

    def detach(self) -> None:
        """The worker is gone: end all that it was working on, and let new requests wait for the next one, if any.

        Generations that only waited in it wait for the next one, too.
        """
        self._channel = self.encoded = self.generated = self.memory_bytes = None
        self.num_computing = self.num_waiting = 0
        if self._state == "draining":
            message = f"model {self._config.id!r} was stopped before this request was done; try again"
            for answers in self._answers.values():
                answers.put_nowait(ModelUnavailable(message))  # each request has an exception of its own
            return
        self.set_state("loading")
        message = f"the worker of model {self._config.id!r} ended while it ran this request; try again"
        for request_id, answers in self._answers.items():
            only_waited = request_id in self._read and request_id not in self._begun
            kind = _NeverBegun if only_waited else WorkerCrashed
            answers.put_nowait(kind(message, retry_after_s=RETRY_AFTER_S))

    def note_heartbeat(self, beat: Heartbeat) -> None:
        self.encoded, self.generated = beat.encoded, beat.generated
        self.num_computing, self.num_waiting = beat.num_running, beat.num_waiting
        self._backlog.set_pace(s_per_token=beat.s_per_token, s_per_answer_token=beat.s_per_answer_token)

    def dispatch(self, message: FromWorker) -> None:
        """Hand a worker's message to whoever waits for it. Those that nobody waits for any more are dropped."""
        if isinstance(message, WeightsRead):
            self._weights_fraction = message.fraction
        elif isinstance(message, StepOutput):
            for output in message.outputs:
                if answers := self._answers.get(output.request_id):
                    answers.put_nowait(output.event)
                    if isinstance(output.event, Started):
                        self._read.add(output.request_id)
        elif isinstance(message, Begun):
            for request_id in self._answers.keys() & message.request_ids:
                self._begun.add(request_id)
                self._answers[request_id].put_nowait(message)
        elif isinstance(message, _OneAnswer) and message.request_id in self._answers:
            self._answers[message.request_id].put_nowait(message)

    # ---- inside

    def _notify(self) -> None:
        """Have all who wait for something of this model look again."""
        self._state_changed.set()
        self._state_changed = asyncio.Event()

    async def _ask(
        self,
        request_id: str,
        message: Callable[[], ToWorker],
        *,
        deadline_at: float = math.inf,
        num_tokens: int = 0,
        lane: Lane = "interactive",
    ) -> _Answer:
        """Send a request that has one answer, as it is when the model is ready, and wait for it.

        Args:
            deadline_at: The model has to be ready by then; whoever asks may set a deadline for the answer too.
        """
        asker = current_asker()
        answer: _Answer | None = None
        with self._admitted(num_tokens, lane=lane):
            heir = await self._wait_until_ready(deadline_at=min(deadline_at, asker.deadline_at))
            if heir is None:
                answers = self._open(request_id)
                try:
                    self._send(message())
                    async with asyncio.timeout(None if asker.deadline_at == math.inf else asker.left_s):
                        answer = await answers.get()
                except TimeoutError:
                    raise DeadlineExceeded(
                        f"model {self._config.id!r} did not answer in the time that the request allowed; allow more "
                        "time"
                    ) from None
                finally:
                    self._close(request_id, abort=answer is None)
        if heir is not None:
            return await heir._ask(request_id, message, deadline_at=deadline_at, num_tokens=num_tokens, lane=lane)
        if isinstance(answer, HearthError):
            raise answer
        if isinstance(answer, RequestFailed):
            raise _error_of(answer.error)
        assert answer is not None
        return answer

    @contextmanager
    def _admitted(
        self, num_tokens: int, *, lane: Lane = "interactive", max_answer_tokens: float | None = None
    ) -> Iterator[Held]:
        """Hold a request from its first moment: those that wait for the model take memory too.

        Raises:
            Overloaded: The model holds as much as the limits allow.
        """
        held = self._backlog.enter(current_asker(), num_tokens, lane=lane, max_answer_tokens=max_answer_tokens)
        try:
            yield held
        finally:
            self._backlog.leave(held)
            if not self.num_requests:
                self.last_used = time.monotonic()
                self.on_idle()

    async def _wait_until_ready(self, *, deadline_at: float = math.inf) -> WorkerClient | None:
        """Wait while the model loads, as long as the limits allow, and `time.monotonic()` is below the deadline.

        Returns:
            The heir, if requests go there by now.

        Raises:
            ModelUnavailable: It has failed, is going away, finds no room, or takes too long.
        """
        try:
            async with asyncio.timeout(min(self._limits.load_wait_s, deadline_at - time.monotonic())):
                await self._ready_or_handed_over()
        except TimeoutError:
            if time.monotonic() >= deadline_at:
                message = f"model {self._config.id!r} did not load within the request's timeout_s; allow more time"
                raise DeadlineExceeded(message) from None
            raise self._still_loading() from None
        return self._heir

    async def _ready_or_handed_over(self) -> None:
        """Ask for a load whenever the model has none and none has been refused meanwhile, and wait for it."""
        is_new = True
        while self._state != "ready" and self._heir is None and not self._is_closed:
            if (is_new and self._state == "failed") or (self._state == "unloaded" and (is_new or not self._refusal)):
                self._refusal = None
                self._request_load()
            if self._state == "failed":
                break
            if self._refusal is not None:
                raise copy(self._refusal)  # each request has an exception of its own
            is_new = False
            await self._state_changed.wait()
        if self._state != "ready" and self._heir is None:
            reason = f": {self._failure}" if self._failure else ""
            state = "has failed" if self._state == "failed" else f"is {self._state}"
            raise ModelUnavailable(f"model {self._config.id!r} {state}{reason}", retry_after_s=RETRY_FAILED_AFTER_S)

    def _still_loading(self) -> ModelLoading:
        """What a request hears that has waited long enough: how far it is, what it waits for, when to come back."""
        text = f"model {self._config.id!r} is still loading"
        progress = self.progress
        if progress and progress.fraction is not None:
            text += f" ({progress.fraction:.0%})"
        if self.waiting_for:
            text += f": {self.waiting_for}"
        left_s = progress.remaining_s if progress else None
        retry_after_s = RETRY_LOADING_AFTER_S if left_s is None else math.ceil(left_s)
        retry_after_s = min(max(retry_after_s, 1), MAX_RETRY_AFTER_S)
        return ModelLoading(f"{text}; try again in {retry_after_s} s", retry_after_s=retry_after_s)

    def _open(self, request_id: str) -> asyncio.Queue[_Answer]:
        assert request_id not in self._answers
        answers: asyncio.Queue[_Answer] = asyncio.Queue()
        self._answers[request_id] = answers
        if not self._is_chatting and self._config.kind == "chat" and self._computes_on_cpu:
            self._is_chatting = True
            self._cpu_split.chat_begins()
        return answers

    def _close(self, request_id: str, *, abort: bool) -> None:
        del self._answers[request_id]
        self._read.discard(request_id)
        self._begun.discard(request_id)
        if not self._answers:
            self._all_answered.set()
        if self._is_chatting and not self._answers:
            self._is_chatting = False
            self._cpu_split.chat_ends()
        if abort and self._channel is not None:
            self._channel.send(Abort(request_id))

    @property
    def _computes_on_cpu(self) -> bool:
        details = self._facts.details if self._facts else {}
        return details.get("gpu_layers") == "0" or details.get("device") == "cpu"

    def _send_bulk_share(self, share: float) -> None:
        if self._channel is not None and self._computes_on_cpu:
            self._channel.send(BulkShare(share))

    def _send(self, message: ToWorker) -> None:
        assert self._channel is not None  # ready, and nothing has been awaited since
        self._channel.send(message)  # if the worker has just died, `detach` is about to say so


def _error_of(failed: Failed) -> HearthError:
    return from_code(failed.code, failed.message, failed.param)


def _max_answer_tokens(request: GenerateRequest) -> float:
    return math.inf if request.sampling.max_tokens is None else request.sampling.max_tokens


def _deadline_of(request: GenerateRequest) -> float:
    timeout_s = request.urgency.timeout_s
    return math.inf if timeout_s is None else request.arrived_at + timeout_s
