"""The process of one GGUF chat model: `python -m server.workers.chat_worker`.

Threads: the main one runs the engine; the channel's takes messages; the front thread renders templates and tokenises.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from server.bindings.build_info import load_build_info
from server.bindings.llama_context import ContextOptions, LlamaContext
from server.bindings.llama_model import ALL_LAYERS, LlamaModel
from server.config.schema import ModelConfig
from server.engine.detokenizer import Detokenizer
from server.engine.engine import Engine, Output
from server.engine.kv_cache import KVCache
from server.engine.llama_backend import LlamaBackend
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.errors import ContextLengthExceeded, HearthError, InternalError, InvalidRequest, LoadFailed
from server.prompting.chat_template import ChatTemplate, PromptPiece
from server.types import (
    Failed,
    GenerateRequest,
    ModelFacts,
    Prompt,
    Started,
    StreamEvent,
    TextPrompt,
    TokenIds,
    TokensPrompt,
)
from server.workers.child import Send, run_child
from server.workers.front import Front
from server.workers.messages import Abort, Generate, Heartbeat, StepOutput, StreamOutput, ToWorker, WorkerSpec

logger = logging.getLogger(__name__)

DEFAULT_MAX_CONTEXT = 8192
"""Tokens of a request when models.yaml says nothing: more costs memory that most do not need."""

NUM_IDLE_IDS = 64
"""Sequence ids for prefixes that are kept for later requests, besides those of running sequences."""

MAX_IDS = 256
"""llama.cpp's own limit."""

FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
"""ChatML, for weights that carry no template; llama.cpp does the same."""


class ChatWorker:
    """Joins a llama.cpp model, its template and the engine."""

    def __init__(self, config: ModelConfig, spec: WorkerSpec, send: Send) -> None:
        assert spec.weights_path is not None
        self._send = send
        build = load_build_info()
        use_extra_bufts = build.use_extra_bufts and not spec.portable_kernels
        gpu_layers = _num_gpu_layers(config, has_gpu=build.cuda)
        self._model = LlamaModel(Path(spec.weights_path), gpu_layers=gpu_layers, use_extra_bufts=use_extra_bufts)
        self.context_length = choose_context(config.context, own=self._model.context_length)
        options = _context_options(config, spec, self._model, self.context_length, has_gpu_layers=gpu_layers != 0)
        backend = LlamaBackend(LlamaContext(self._model, options))
        vocab = self._model.vocab
        self._template = ChatTemplate(
            self._model.metadata("tokenizer.chat_template") or FALLBACK_TEMPLATE,
            control_texts=vocab.control_texts,
            bos=vocab.bos,
            eos=vocab.eos,
        )
        self._engine = Engine(
            backend,
            Scheduler(
                KVCache(backend),
                SchedulerOptions(max_step_tokens=options.max_batch_tokens, max_running=config.max_sequences),
            ),
            Sampler(vocab.is_end),
            is_end=lambda token_id: bool(vocab.is_end[token_id]),
        )
        self._front = Front(self._start, self._engine.abort)
        self.facts = ModelFacts(
            context_length=self.context_length,
            num_parameters=self._model.num_parameters,
            architecture=self._model.architecture,
            details={
                "threads": str(spec.num_threads),
                "gpu_layers": "all" if gpu_layers == ALL_LAYERS else str(gpu_layers),
                "kv": "streams" if options.streams else "unified",
                "kv_cells": str(options.num_cells),
                "max_sequences": str(config.max_sequences),
                "flash_attention": "on" if options.flash_attention else "off",
                "repacked_weights": "on" if use_extra_bufts else "off",
            },
        )

    # ---- the main thread

    def run(self) -> None:
        while not self._engine.is_stopped:
            self._engine.wait_for_work()
            self._emit(self._step())

    def _step(self) -> list[Output]:
        try:
            return self._engine.step()
        except Exception:
            # The loop must survive a bug: all live requests end, with the traceback in the log, and the next ones run.
            logger.exception("engine step failed")
            return self._engine.fail_all("internal error; the server's log has details")

    def _emit(self, outputs: list[Output]) -> None:
        if outputs:
            self._send(StepOutput([StreamOutput(request_id, event) for request_id, event in outputs]))

    # ---- the channel's thread

    def handle(self, message: ToWorker) -> None:
        if isinstance(message, Generate):
            self._front.submit(message.request)
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
        )

    def stop(self) -> None:
        self._engine.stop()

    # ---- the front thread

    def _start(self, request: GenerateRequest) -> None:
        """Turn a request into a sequence of the engine, or refuse it."""
        try:
            sequence = self._sequence_of(request)
        except HearthError as exc:
            self._reply(request, Failed(exc.code, exc.message, exc.param))
        except Exception:
            logger.exception("request could not be prepared", extra={"request_id": request.request_id})
            self._reply(request, Failed(InternalError.code, "internal error; the server's log has details"))
        else:
            self._reply(request, Started(sequence.num_prompt_tokens))
            self._engine.add(sequence)

    def _reply(self, request: GenerateRequest, event: StreamEvent) -> None:
        self._emit([(request.request_id, event)])

    def _sequence_of(self, request: GenerateRequest) -> Sequence:
        token_ids = self._tokenize(request.prompt)
        room = self.context_length - len(token_ids)
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {len(token_ids)} tokens but the model accepts {self.context_length}, prompt and answer"
                f" together; shorten it by at least {1 - room}",
                param=request.prompt.param,
            )
        self._check_logit_bias(request)
        sampling = request.sampling
        return Sequence(
            request.request_id,
            token_ids,
            sampling,
            max_tokens=room if sampling.max_tokens is None else min(sampling.max_tokens, room),
            detokenizer=Detokenizer(self._model.vocab.pieces, sampling.stop),
        )

    def _tokenize(self, prompt: Prompt) -> TokenIds:
        """Token ids of a prompt, BOS included where the model wants one.

        Raises:
            InvalidRequest: Empty, refused by the template, or token ids that the model does not have.
            ContextLengthExceeded: So long that counting its tokens is not worth the time.
        """
        vocab = self._model.vocab
        if isinstance(prompt, TokensPrompt):
            unknown = next((token_id for token_id in prompt.token_ids if not 0 <= token_id < vocab.size), None)
            if unknown is not None:
                raise InvalidRequest(f"token id {unknown} is not in 0..{vocab.size - 1}", param="prompt")
            token_ids = prompt.token_ids
        else:
            if isinstance(prompt, TextPrompt):
                pieces = [PromptPiece(prompt.text, parse_special=True)]
            else:
                pieces = self._template.render(prompt.messages)
            self._check_size(pieces, prompt)
            token_ids = [
                token_id
                for piece in pieces
                for token_id in vocab.tokenize(piece.text, parse_special=piece.parse_special)
            ]
            if vocab.adds_bos and token_ids[:1] != [vocab.bos_id]:
                token_ids = [vocab.bos_id, *token_ids]
        if not token_ids:
            raise InvalidRequest("the prompt is empty; give at least one token", param=prompt.param)
        return token_ids

    def _check_size(self, pieces: list[PromptPiece], prompt: Prompt) -> None:
        """Refuse megabytes of text before tokenising them: no token is longer than the longest piece."""
        least = sum(len(piece.text) for piece in pieces) // self._model.vocab.longest_piece
        if least > self.context_length:
            raise ContextLengthExceeded(
                f"the prompt has more than {least} tokens but the model accepts {self.context_length}; shorten it",
                param=prompt.param,
            )

    def _check_logit_bias(self, request: GenerateRequest) -> None:
        size = self._model.vocab.size
        for token_id in request.sampling.logit_bias:
            if not 0 <= token_id < size:
                raise InvalidRequest(f"logit_bias names token id {token_id}; ids are 0..{size - 1}", param="logit_bias")


def choose_context(configured: int | None, *, own: int) -> int:
    """Decide how many tokens one request may have: as configured, or what the model was made for, within reason.

    Raises:
        LoadFailed: More are configured than the model was made for.
    """
    if configured is not None and configured > own:
        raise LoadFailed(f"context is {configured} but the model was made for {own} tokens; lower context")
    return configured or min(own, DEFAULT_MAX_CONTEXT)


def _context_options(
    config: ModelConfig, spec: WorkerSpec, model: LlamaModel, context_length: int, *, has_gpu_layers: bool
) -> ContextOptions:
    num_contexts = config.max_sequences if config.kv == "streams" else 2
    num_cells = max(config.kv_cells or num_contexts * context_length, context_length)
    fits_streams = num_cells >= config.max_sequences * context_length
    if config.kv == "streams" and not fits_streams:
        raise LoadFailed(
            f"kv: streams needs kv_cells >= max_sequences x context = {config.max_sequences * context_length},"
            f" but it is {num_cells}; raise it, or lower the others"
        )
    streams = config.kv == "streams" or (config.kv == "auto" and fits_streams)
    shares_cells = model.can_share_prefixes and not streams
    num_idle_ids = min(NUM_IDLE_IDS, MAX_IDS - config.max_sequences) if shares_cells else 0
    flash = has_gpu_layers if config.flash_attention == "auto" else config.flash_attention == "on"
    return ContextOptions(
        num_cells=num_cells,
        max_sequences=config.max_sequences + num_idle_ids,
        streams=streams,
        num_threads=spec.num_threads,
        flash_attention=flash,
    )


def _num_gpu_layers(config: ModelConfig, *, has_gpu: bool) -> int:
    if config.gpu_layers == "auto":
        return ALL_LAYERS if has_gpu else 0
    return ALL_LAYERS if config.gpu_layers == "all" else config.gpu_layers


if __name__ == "__main__":
    run_child(ChatWorker)
