"""The process of one GGUF chat model: `python -m server.workers.chat_worker`.

Threads: the main one runs the engine; the text thread turns its tokens into events while the next step computes; the
channel's takes messages; a front thread renders templates and tokenises, another one does so for requests with a
grammar, which it has compiled by a thread that may be given up; a last one computes masks while the engine's computes.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

from server.bindings.build_info import load_build_info
from server.bindings.context_options import ContextOptions
from server.bindings.llama_context import LlamaContext
from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.engine.detokenizer import Detokenizer
from server.engine.engine import Engine, TokenOutput
from server.engine.grammar_compiler import GrammarCompiler
from server.engine.kv_cache import KVCache
from server.engine.llama_backend import LlamaBackend
from server.engine.output_processor import OutputProcessor
from server.engine.parked_prefixes import ParkedPrefixes
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.errors import HearthError, InternalError, LoadFailed
from server.types import (
    ChatPrompt,
    Delta,
    Failed,
    GenerateRequest,
    ModelFacts,
    SamplingParams,
    Started,
    StreamEvent,
    TokenIds,
)
from server.workers.answer_plans import AnswerPlan, AnswerPlans
from server.workers.chat_prompts import ChatPrompts
from server.workers.child import Send, run_child
from server.workers.context_choice import choose_context
from server.workers.front import Asked, Front
from server.workers.gpu_placement import place_chat_model
from server.workers.messages import (
    Abort,
    Begun,
    Generate,
    Heartbeat,
    PiecesTold,
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
    WeightsRead,
    WorkerSpec,
)
from server.workers.output_queue import OutputQueue
from server.workers.planned_context import prefix_memory_bytes
from server.workers.runtime_choice import choose_runtime

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that runs Python may keep the others waiting: the engine's comes back from llama.cpp and numpy many
times a step, and Python's 5 ms would be felt each time that a burst of requests is being tokenised."""


class ChatWorker:
    """Joins a llama.cpp model, its template and the engine."""

    def __init__(self, config: ModelConfig, spec: WorkerSpec, send: Send) -> None:
        assert spec.weights_path is not None
        self._send = send
        build = load_build_info()
        use_extra_bufts = build.use_extra_bufts and not spec.portable_kernels
        placement = place_chat_model(config, spec)
        self._model = LlamaModel(
            Path(spec.weights_path),
            placement=placement,
            use_extra_bufts=use_extra_bufts,
            on_progress=lambda fraction: send(WeightsRead(fraction)),
        )
        context_length = choose_context(config.context, own=self._model.context_length)
        runtime = choose_runtime(
            self._model,
            config,
            spec,
            context_length=context_length,
            num_pinned=len(config.pinned_prefixes),
            has_gpu_layers=placement.uses_gpu,
        )
        self._context_length = context_length
        self._prompts = ChatPrompts(self._model, config, context_length=context_length)
        self._grammars = self._make_grammars()
        self._plans = AnswerPlans(self._prompts.speech, self._model.vocab, self._grammars)
        self._engine = self._make_engine(config, runtime.options)
        self._texts = OutputProcessor(self._engine.abort, is_end=self._is_end, names=self._model.vocab.names)
        self._to_texts = OutputQueue()
        self._front = Front(self._prepare, self._abort)
        self._pin_prefixes(config, num_cells=runtime.options.num_cells)
        self.facts = ModelFacts(
            context_length=context_length,
            num_parameters=self._model.num_parameters,
            architecture=self._model.architecture,
            details={
                **runtime.details,
                "gpu_layers": placement.described_layers,
                "kv_cells": str(runtime.options.num_cells),
                "max_sequences": str(config.max_sequences),
                "prefix_memory_mb": str(prefix_memory_bytes(config) >> 20),
                "repacked_weights": "on" if use_extra_bufts else "off",
            },
        )

    # ---- the main thread

    def run(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        texts = threading.Thread(target=self._run_texts, name="texts")
        texts.start()
        try:
            while not self._engine.is_stopped:
                self._engine.wait_for_work()
                if outputs := self._step():
                    self._to_texts.put(outputs, is_urgent=self._texts.is_awaited(outputs))
        finally:
            self._to_texts.close()
            texts.join()

    def _step(self) -> list[TokenOutput]:
        try:
            return self._engine.step()
        except Exception:
            # The loop must survive a bug: all live requests end, with the traceback in the log, and the next ones run.
            logger.exception("engine step failed")
            return self._engine.fail_all("internal error; the server's log has details")

    def _say_begun(self, request_ids: list[str]) -> None:
        self._send(Begun(request_ids))

    # ---- the text thread

    def _run_texts(self) -> None:
        while (outputs := self._to_texts.take()) is not None:
            events = self._texts.process(outputs)
            if events:
                self._send(StepOutput([StreamOutput(request_id, event) for request_id, event in events]))

    # ---- the channel's thread

    def handle(self, message: ToWorker) -> None:
        if isinstance(message, Generate):
            self._front.submit(message.request)
        elif isinstance(message, Question):
            self._front.submit(message)
        elif isinstance(message, Abort):
            self._front.abort(message.request_id)

    def heartbeat(self) -> Heartbeat:
        engine = self._engine
        started_at = engine.step_started_at
        return Heartbeat(
            num_steps=engine.num_steps + self._front.num_prepared,
            busy_s=time.monotonic() - started_at if started_at is not None else 0.0,
            num_running=engine.num_running,
            num_waiting=engine.num_waiting + self._front.num_waiting,
            generated=engine.counts(),
            s_per_token=engine.s_per_token,
            s_per_answer_token=engine.s_per_answer_token,
        )

    def stop(self) -> None:
        self._engine.stop()

    def _abort(self, request_id: str) -> None:
        self._texts.close(request_id)
        self._engine.abort(request_id)

    # ---- the front threads

    def _prepare(self, asked: Asked) -> None:
        """Do what is asked, or refuse it."""
        try:
            if isinstance(asked, GenerateRequest):
                self._start(asked)
            else:
                self._send(self._answer(asked))
        except HearthError as exc:
            self._refuse(asked, Failed(exc.code, exc.message, exc.param))
        except Exception:
            logger.exception("request could not be prepared", extra={"request_id": asked.request_id})
            self._refuse(asked, Failed(InternalError.code, "internal error; the server's log has details"))

    def _start(self, request: GenerateRequest) -> None:
        """Turn a request into a sequence of the engine."""
        begun_at = time.monotonic()
        prompt = self._prompts.read(request)
        prediction = self._prompts.prediction(request) if request.prediction else []
        plan = self._plans.plan(request, is_thinking=prompt.is_thinking)
        tokenize_s = time.monotonic() - begun_at
        sequence = self._sequence_of(request, prompt.token_ids, plan, tokenize_s=tokenize_s, prediction=prediction)
        queue_s = max(0.0, begun_at - request.arrived_at)
        self._reply(request, Started(sequence.num_prompt_tokens, queue_s * 1000, tokenize_s * 1000))
        if request.echoes and not isinstance(request.prompt, ChatPrompt):
            self._reply(request, Delta(self._prompts.text_of(request.prompt), num_tokens=0))
        self._texts.open(sequence, Detokenizer(plan.pieces, request.sampling.stop), plan.reader)
        self._engine.add(sequence)

    def _answer(self, asked: Question) -> Reply:
        match asked:
            case TellTokenIds():
                return TokenIdsTold(asked.request_id, list(map(self._prompts.token_ids, asked.inputs)))
            case Render():
                return Rendered(asked.request_id, self._prompts.render(asked.prompt))
            case TellPieces():
                return PiecesTold(asked.request_id, self._prompts.token_pieces(asked.token_ids))

    def _refuse(self, asked: Asked, failure: Failed) -> None:
        if isinstance(asked, GenerateRequest):
            self._reply(asked, failure)
        else:
            self._send(RequestFailed(asked.request_id, failure))

    def _reply(self, request: GenerateRequest, event: StreamEvent) -> None:
        self._send(StepOutput([StreamOutput(request.request_id, event)]))

    def _sequence_of(
        self,
        request: GenerateRequest,
        prompt: TokenIds,
        plan: AnswerPlan,
        *,
        tokenize_s: float,
        prediction: TokenIds,
    ) -> Sequence:
        room = self._context_length - len(prompt)
        max_tokens, timeout_s = request.sampling.max_tokens, request.urgency.timeout_s
        return Sequence(
            request.request_id,
            prompt,
            request.sampling,
            max_tokens=room if max_tokens is None else min(max_tokens, room),
            mask=plan.mask,
            tenant=request.tenant,
            weight=request.urgency.weight,
            priority=request.urgency.priority,
            arrived_at=request.arrived_at,
            deadline_at=float("inf") if timeout_s is None else request.arrived_at + timeout_s,
            tokenize_s=tokenize_s,
            prediction=prediction,
        )

    # ---- loading

    def _make_engine(self, config: ModelConfig, options: ContextOptions) -> Engine:
        backend, cost = LlamaBackend(LlamaContext(self._model, options)), StepCost()
        scheduler = Scheduler(
            KVCache(backend, parked=ParkedPrefixes(max_bytes) if (max_bytes := prefix_memory_bytes(config)) else None),
            SchedulerOptions(
                max_step_tokens=options.max_batch_tokens,
                max_running=min(config.max_sequences, options.max_batch_tokens),
                drafts=config.drafting,
            ),
            cost,
        )
        sampler = Sampler(self._model.vocab.is_end)
        return Engine(backend, scheduler, sampler, cost, is_end=self._is_end, on_begin=self._say_begun)

    def _make_grammars(self) -> GrammarCompiler:
        vocab = self._model.vocab
        return GrammarCompiler(vocab.pieces, vocab.is_end, lambda text: vocab.tokenize(text, parse_special=False))

    def _is_end(self, token_id: int) -> bool:
        return bool(self._model.vocab.is_end[token_id])

    def _pin_prefixes(self, config: ModelConfig, *, num_cells: int) -> None:
        """Compute the pinned prefixes.

        Raises:
            LoadFailed: The model cannot share them, or refuses one, or they leave no room for a whole context.
        """
        if config.pinned_prefixes and not self._model.can_share_prefixes:
            kind = self._model.architecture
            raise LoadFailed(f"models of architecture {kind!r} cannot share prefixes; remove pinned_prefixes")
        prefixes = [self._pinned_prefix(text, index) for index, text in enumerate(config.pinned_prefixes)]
        needed = sum(map(len, prefixes)) + self._context_length
        if needed > num_cells:
            raise LoadFailed(
                f"the pinned prefixes and one context need {needed} KV cells but there are {num_cells}; raise kv_cells"
            )
        for index, token_ids in enumerate(prefixes):
            name = f"pinned prefix {index}"
            self._engine.add(Sequence(name, token_ids, SamplingParams(), max_tokens=1, pins_prefix=True))
            while not (outputs := self._engine.step()):
                pass
            if isinstance(ending := outputs[0][-1], Failed):
                raise LoadFailed(f"{name} cannot be computed: {ending.message}")

    def _pinned_prefix(self, text: str, index: int) -> list[int]:
        try:
            token_ids = self._prompts.beginning(text)
        except HearthError as exc:
            raise LoadFailed(f"pinned_prefixes[{index}] is refused by the model: {exc.message}") from exc
        if not 0 < len(token_ids) < self._context_length:
            raise LoadFailed(
                f"pinned_prefixes[{index}] has {len(token_ids)} tokens; expected 1 to {self._context_length - 1}"
            )
        return token_ids


if __name__ == "__main__":
    run_child(ChatWorker)
