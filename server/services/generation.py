"""What chat and completions share: sampling with the model's defaults, a generation, and its collected answer."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TypedDict

from server.config.schema import SamplingDefaults
from server.errors import InternalError
from server.services.grounding import Cited, Sourced
from server.types import Delta, Finished, SamplingParams, Started, ToolCall, ToolCallDelta

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


@dataclass(frozen=True)
class Generation:
    """One generation, not begun before `events` is iterated.

    Attributes:
        id: Unique; the id of the answer and of the request to the worker.
        model_id: The configured id, whatever alias the request used.
        events: As `ChatModel.generate` or `GroundedChat.answer` yields them; whoever iterates must close it.
    """

    id: str
    model_id: str
    events: AsyncGenerator[ChatEvent, None]


@dataclass
class Answer:
    """Everything a stream has said so far."""

    pieces: list[str] = field(default_factory=list)
    reasoning_pieces: list[str] = field(default_factory=list)
    call_deltas: list[ToolCallDelta] = field(default_factory=list)
    finished: Finished | None = None
    sourced: Sourced | None = None
    cited: Cited | None = None

    def add(self, event: ChatEvent) -> None:
        if isinstance(event, Delta):
            self.pieces.append(event.text)
            self.reasoning_pieces.append(event.reasoning)
            self.call_deltas.extend(event.tool_calls)
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


def with_defaults(defaults: SamplingDefaults, options: SamplingOptions) -> SamplingParams:
    """Complete the request's options with the model's defaults."""
    return SamplingParams(**{**defaults.model_dump(), **options})
