"""The process of one scripted chat model: `python -m server.workers.script_worker`.

A process like any other model's, so that tests of the API, of crashes and of restarts need no weights.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from server import faults
from server.config.schema import ModelConfig
from server.engine.script import input_text, play, render, token_ids
from server.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    HearthError,
    InternalError,
    InvalidRequest,
    WorkerCrashed,
)
from server.types import Delta, Failed, GenerateRequest, ModelFacts, Started, StreamEvent
from server.workers.child import Send, run_child
from server.workers.messages import (
    Abort,
    Begun,
    Generate,
    Heartbeat,
    Question,
    Render,
    Rendered,
    Reply,
    RequestFailed,
    StepOutput,
    StreamOutput,
    TellPieces,
    TellTokenIds,
    TokenIdsTold,
    ToWorker,
    WorkerSpec,
)

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 8192


class ScriptWorker:
    """Plays one script per request on an event loop of its own."""

    def __init__(self, config: ModelConfig, _spec: WorkerSpec, send: Send) -> None:
        self._rules = config.script
        self._send = send
        self._loop = asyncio.new_event_loop()
        self._playing: dict[str, asyncio.Task[None]] = {}
        self._num_steps = 0
        self.facts = ModelFacts(context_length=config.context or DEFAULT_CONTEXT, architecture="script")

    def run(self) -> None:
        self._loop.run_forever()

    def handle(self, message: ToWorker) -> None:
        if isinstance(message, Generate):
            self._loop.call_soon_threadsafe(self._start, message.request)
        elif isinstance(message, Question):
            self._send(self._answer(message))
        elif isinstance(message, Abort):
            self._loop.call_soon_threadsafe(self._abort, message.request_id)

    def _answer(self, asked: Question) -> Reply | RequestFailed:
        try:
            match asked:
                case TellTokenIds():
                    return TokenIdsTold(asked.request_id, list(map(token_ids, asked.inputs)))
                case Render():
                    return Rendered(asked.request_id, render(asked.prompt))
                case TellPieces():
                    raise InvalidRequest("a scripted model has no vocabulary", param="tokens")
        except HearthError as exc:
            return RequestFailed(asked.request_id, Failed(exc.code, exc.message, exc.param))

    def heartbeat(self) -> Heartbeat:
        # A script that waits, for minutes if it says so, is no work that could be stuck.
        return Heartbeat(num_steps=self._num_steps, busy_s=0.0)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    # ---- the event loop

    def _start(self, request: GenerateRequest) -> None:
        task = self._loop.create_task(self._play(request))
        self._playing[request.request_id] = task
        task.add_done_callback(lambda _: self._playing.pop(request.request_id, None))

    def _abort(self, request_id: str) -> None:
        if task := self._playing.get(request_id):
            task.cancel()

    async def _play(self, request: GenerateRequest) -> None:
        try:
            num_prompt_tokens = self._count_prompt(request)
            self._send(Begun([request.request_id]))  # first: nothing waits here once it has been read
            self._say(request, Started(num_prompt_tokens))
            if request.echoes:
                self._say(request, Delta(input_text(request.prompt), num_tokens=0))
            async with asyncio.timeout_at(self._deadline_of(request)):
                await self._say_script(request)
        except TimeoutError:
            timeout_s = request.urgency.timeout_s
            self._say(request, Failed(DeadlineExceeded.code, f"the script took longer than timeout_s = {timeout_s:g}"))
        except HearthError as exc:
            self._say(request, Failed(exc.code, exc.message, exc.param))
        except Exception:
            logger.exception("script failed", extra={"request_id": request.request_id})
            self._say(request, Failed(InternalError.code, "internal error; the server's log has details"))

    async def _say_script(self, request: GenerateRequest) -> None:
        sampling = request.sampling
        for step in play(self._rules, request.prompt, max_tokens=sampling.max_tokens, stop=sampling.stop):
            await asyncio.sleep(step.delay_s)
            faults.reach("worker.decode")
            if isinstance(step.event, Failed) and step.event.code == WorkerCrashed.code:
                os.kill(os.getpid(), signal.SIGKILL)
            self._say(request, step.event)

    def _deadline_of(self, request: GenerateRequest) -> float | None:
        """On the loop's clock, which is `time.monotonic()`."""
        timeout_s = request.urgency.timeout_s
        return None if timeout_s is None else request.arrived_at + timeout_s

    def _count_prompt(self, request: GenerateRequest) -> int:
        num_tokens, most = len(token_ids(request.prompt)), self.facts.context_length
        if num_tokens >= most:
            raise ContextLengthExceeded(
                f"the prompt has {num_tokens} tokens, but this model's maximum context length is {most}, prompt and"
                " answer together",
                param=request.prompt.param,
            )
        return num_tokens

    def _say(self, request: GenerateRequest, event: StreamEvent) -> None:
        self._num_steps += 1
        self._send(StepOutput([StreamOutput(request.request_id, event)]))


if __name__ == "__main__":
    run_child(ScriptWorker)
