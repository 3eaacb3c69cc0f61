"""The API process's view of one model: sends requests to its worker and hands the answers back.

Lives as long as the server; workers come and go behind it. The keeper attaches a channel when a worker is ready and
detaches it when that worker ends, which ends every request in flight with an error: each request ends once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from server.asker import current_asker
from server.config.schema import Limits, ModelConfig
from server.errors import DeadlineExceeded, HearthError, ModelUnavailable, WorkerCrashed, from_code
from server.protocols import EmbeddingResult, RerankResult
from server.types import (
    ChatPrompt,
    Delta,
    EncoderCounts,
    EngineCounts,
    Failed,
    Finished,
    GenerateRequest,
    Lane,
    ModelFacts,
    ModelState,
    Prompt,
    RenderedPrompt,
    Started,
    StreamEvent,
    Token,
    TokenIds,
    Truncate,
)
from server.workers.backlog import Backlog, Held, num_input_tokens, num_prompt_tokens
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
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2
"""What clients are told when a worker died: restarting takes about as long as loading a small model."""

RETRY_FAILED_AFTER_S = 30
"""What clients are told when a model has failed: the first request after this makes it try once more."""

_OneAnswer = Embedded | Reranked | Tokenized | Reply | RequestFailed
_Answer = StreamEvent | _OneAnswer | HearthError


class _NeverBegun(WorkerCrashed):
    """The worker died while the request waited in it: it had been read, and was not computed."""


class WorkerClient:
    """Implements `ChatModel`, `EmbeddingModel` and `RerankModel` (whichever the model is) over one worker.

    Args:
        request_load: Called when a request needs a model that is not loaded, or has failed; returns at once. Whether
            a failed model is tried again is for it to decide.
        cpu_split: Shared by the models of a server; None: this model shares the processor with nobody.

    Attributes:
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
        self._ids = itertools.count()
        self._state: ModelState = "unloaded"
        self._failure: str | None = None
        self._facts: ModelFacts | None = None
        self.encoded: EncoderCounts | None = None  # as of the last heartbeat, as is what follows
        self.generated: EngineCounts | None = None
        self.num_computing = self.num_waiting = 0
        self._backlog = Backlog(config.id, limits, num_places=config.max_sequences if config.kind == "chat" else None)

    # ---- what everybody may see

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

    # ---- requests

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        size = num_prompt_tokens(request.prompt)
        with self._admitted(size, max_answer_tokens=_max_answer_tokens(request)) as held:
            is_over, num_told, may_begin_again = False, 0, True
            while not is_over:
                await self._wait_until_ready(deadline_at=_deadline_of(request))
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
                        assert isinstance(event, Started | Delta | Finished)
                        is_over = isinstance(event, Finished)
                        self._note(held, event)
                        if num_told == 0 or not isinstance(event, Started):
                            num_told += 1
                            yield event
                finally:
                    self._close(request.request_id, abort=not is_over)

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
        self._state, self._failure = state, failure
        self._state_changed.set()
        self._state_changed = asyncio.Event()

    def attach(self, channel: ParentChannel, facts: ModelFacts) -> None:
        """A worker is ready: requests go to it from now on."""
        self._channel, self._facts = channel, facts
        self.set_state("ready")
        if self._config.kind != "chat":
            self._send_bulk_share(self._cpu_split.share)

    def detach(self) -> None:
        """The worker is gone: end all that it was working on, and let new requests wait for the next one, if any.

        Generations that only waited in it wait for the next one, too.
        """
        self._channel = self.encoded = self.generated = None
        self.num_computing = self.num_waiting = 0
        if self._state == "draining":
            error = ModelUnavailable(f"model {self._config.id!r} was stopped before this request was done; try again")
            for answers in self._answers.values():
                answers.put_nowait(error)
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
        if isinstance(message, StepOutput):
            for output in message.outputs:
                if answers := self._answers.get(output.request_id):
                    answers.put_nowait(output.event)
                    if isinstance(output.event, Started):
                        self._read.add(output.request_id)
        elif isinstance(message, Begun):
            self._begun.update(self._answers.keys() & message.request_ids)
        elif isinstance(message, _OneAnswer) and message.request_id in self._answers:
            self._answers[message.request_id].put_nowait(message)

    # ---- inside

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
        with self._admitted(num_tokens, lane=lane):
            await self._wait_until_ready(deadline_at=min(deadline_at, asker.deadline_at))
            answers = self._open(request_id)
            answer: _Answer | None = None
            try:
                self._send(message())
                async with asyncio.timeout(None if asker.deadline_at == math.inf else asker.left_s):
                    answer = await answers.get()
            except TimeoutError:
                raise DeadlineExceeded(
                    f"model {self._config.id!r} did not answer in the time that the request allowed; allow more time"
                ) from None
            finally:
                self._close(request_id, abort=answer is None)
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

    async def _wait_until_ready(self, *, deadline_at: float = math.inf) -> None:
        """Wait while the model loads, as long as the limits allow, and `time.monotonic()` is below the deadline.

        Raises:
            ModelUnavailable: It has failed, is going away, or takes too long.
        """
        if self._state in ("unloaded", "failed"):
            self._request_load()
        try:
            async with asyncio.timeout(min(self._limits.load_wait_s, deadline_at - time.monotonic())):
                while self._state in ("unloaded", "loading"):
                    await self._state_changed.wait()
        except TimeoutError:
            if time.monotonic() >= deadline_at:
                message = f"model {self._config.id!r} did not load within the request's timeout_s; allow more time"
                raise DeadlineExceeded(message) from None
            raise ModelUnavailable(f"model {self._config.id!r} is still loading; try again later") from None
        if self._state != "ready":
            reason = f": {self._failure}" if self._failure else ""
            state = "has failed" if self._state == "failed" else f"is {self._state}"
            raise ModelUnavailable(f"model {self._config.id!r} {state}{reason}", retry_after_s=RETRY_FAILED_AFTER_S)

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
