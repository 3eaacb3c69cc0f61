"""Completions: prompts continued as they stand, several at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from server.models.registry import ModelRegistry
from server.services.generation import GenerationEvent, SamplingOptions, new_id, with_defaults
from server.services.merge import merge
from server.types import NO_HURRY, GenerateRequest, TextPrompt, TokensPrompt, Urgency


@dataclass(frozen=True)
class CompletionBatch:
    """Generations that run side by side under one id.

    Attributes:
        id: The id of the answer; generation i runs as `{id}-{i}`.
        model_id: The configured id, whatever alias the request used.
        num_prompts: How many `Started` the events begin with.
        events: (prompt index, event), all `Started` first; whoever iterates must close it.
    """

    id: str
    model_id: str
    num_prompts: int
    events: AsyncGenerator[tuple[int, GenerationEvent], None]


class CompletionService:
    """Finds the model and starts one generation for each prompt."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def generate(
        self,
        model: str,
        prompts: Sequence[TextPrompt | TokensPrompt],
        *,
        sampling: SamplingOptions,
        urgency: Urgency = NO_HURRY,
    ) -> CompletionBatch:
        """Prepare continuations of `prompts`; the model starts with the first step of `CompletionBatch.events`.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not generate text.
        """
        config, chat_model = self._registry.chat(model)
        batch_id = new_id("cmpl")
        params = with_defaults(config.defaults, sampling)
        streams = [
            chat_model.generate(
                GenerateRequest(request_id=f"{batch_id}-{index}", prompt=prompt, sampling=params, urgency=urgency)
            )
            for index, prompt in enumerate(prompts)
        ]
        return CompletionBatch(batch_id, config.id, len(streams), merge(streams))
