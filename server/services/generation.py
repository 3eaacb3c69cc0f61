"""What chat and completions share: sampling with the model's defaults, a generation, and its collected answer."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TypedDict

from msgspec import structs

from server.config.schema import ModelConfig, SamplingDefaults
from server.errors import InternalError, InvalidRequest
from server.services.grounding import Cited, Sourced
from server.types import (
    Delta,
    Finished,
    GenerateRequest,
    SamplingParams,
    Started,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)

GenerationEvent = Started | Delta | Finished

ChatEvent = GenerationEvent | Sourced | Cited
"""Of a grounded answer: `Started Sourced Delta* Cited Finished`."""


class SamplingOptions(TypedDict, total=False):
    """The part of `SamplingParams` that a request names itself; absent keys get the model's defaults."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repeat_penalty: float
    logit_bias: dict[int, float]
    seed: int
    stop: tuple[str, ...]
    ignore_eos: bool
    num_logprobs: int


@dataclass(frozen=True)
class Generation:
    """What runs side by side for one request, not begun before it is iterated.

    Attributes:
        id: Unique; the id of the answer. The ids of the requests to the worker begin with it.
        model_id: The configured id, whatever alias the request used.
        streams: One for each answer, as `ChatModel.generate` or `GroundedChat.answer` yields them; whoever iterates
            must close them.
    """

    id: str
    model_id: str
    streams: tuple[AsyncGenerator[ChatEvent, None], ...]

    @property
    def events(self) -> AsyncGenerator[ChatEvent, None]:
        """The only stream."""
        (stream,) = self.streams
        return stream


@dataclass
class Answer:
    """Everything a stream has said so far."""

    pieces: list[str] = field(default_factory=list)
    reasoning_pieces: list[str] = field(default_factory=list)
    call_deltas: list[ToolCallDelta] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None
    sourced: Sourced | None = None
    cited: Cited | None = None

    def add(self, event: ChatEvent) -> None:
        if isinstance(event, Delta):
            self.pieces.append(event.text)
            self.reasoning_pieces.append(event.reasoning)
            self.call_deltas.extend(event.tool_calls)
            self.logprobs.extend(event.logprobs)
        elif isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, Sourced):
            self.sourced = event
        elif isinstance(event, Cited):
            self.cited = event

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        return "".join(self.reasoning_pieces)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls, in the order in which they began."""
        firsts = {delta.index: delta for delta in reversed(self.call_deltas)}
        arguments: dict[int, list[str]] = {}
        for delta in self.call_deltas:
            arguments.setdefault(delta.index, []).append(delta.arguments)
        return [ToolCall(firsts[index].id, firsts[index].name, "".join(texts)) for index, texts in arguments.items()]

    @property
    def ending(self) -> Finished:
        if self.finished is None:
            raise InternalError("the generation stopped without an ending")
        return self.finished


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def siblings_of(request: GenerateRequest, count: int) -> list[GenerateRequest]:
    """Requests for several answers to one prompt, which the model computes once. Each has a seed of its own: the
    request's, and those that follow it."""
    if count == 1:
        return [request]
    seed = request.sampling.seed
    return [
        structs.replace(
            request,
            request_id=f"{request.request_id}-{index}",
            sampling=structs.replace(request.sampling, seed=None if seed is None else seed + index),
        )
        for index in range(count)
    ]


def refuse_for_script(config: ModelConfig, param: str) -> None:
    """Raises InvalidRequest if the model is a script, which computes nothing."""
    if config.backend == "script":
        raise InvalidRequest(
            f"the answers of model {config.id!r} are written in models.yaml; leave {param} out",
            param=param,
            code="unsupported_parameter",
        )


def with_defaults(defaults: SamplingDefaults, options: SamplingOptions) -> SamplingParams:
    """Complete the request's options with the model's defaults."""
    return SamplingParams(**{**defaults.model_dump(), **options})
