"""Completions: prompts continued as they stand, several at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import structs

from server.asker import on_behalf
from server.models.registry import ModelRegistry
from server.services.generation import (
    Answer,
    Generation,
    SamplingOptions,
    new_id,
    refuse_for_script,
    siblings_of,
    with_defaults,
)
from server.types import DEFAULT_TENANT, NO_HURRY, GenerateRequest, TextPrompt, TokensPrompt, Urgency


class CompletionService:
    """Finds the model and starts the generations of each prompt."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def generate(
        self,
        model: str,
        prompts: Sequence[TextPrompt | TokensPrompt],
        *,
        sampling: SamplingOptions,
        urgency: Urgency = NO_HURRY,
        tenant: str = DEFAULT_TENANT,
        num_choices: int = 1,
        best_of: int = 1,
        echoes: bool = False,
    ) -> Generation:
        """Prepare continuations of `prompts`; the model starts with the first step of `Generation.streams`.

        Args:
            num_choices: Continuations of each prompt that are wanted.
            best_of: Those that are made; if they are more, `pick_best` has to choose. The first prompt's come first.
            echoes: Begin each with its prompt.

        Raises:
            ModelNotFound: No model of that name.
            InvalidRequest: The model does not generate text, or is a script that is asked for what it cannot do.
        """
        config, chat_model = self._registry.chat(model)
        params = with_defaults(config.defaults, sampling)
        if params.num_logprobs is not None:
            refuse_for_script(config, "logprobs")
        if any(isinstance(prompt, TextPrompt) and prompt.suffix for prompt in prompts):
            refuse_for_script(config, "suffix")
        if best_of > num_choices:
            refuse_for_script(config, "best_of")
            params = structs.replace(params, num_logprobs=params.num_logprobs or 0)
        completion_id = new_id("cmpl")
        requests = [
            GenerateRequest(
                request_id=f"{completion_id}-{index}",
                prompt=prompt,
                sampling=params,
                urgency=on_behalf(urgency),
                tenant=tenant,
                echoes=echoes,
            )
            for index, prompt in enumerate(prompts)
        ]
        streams = tuple(
            chat_model.generate(sibling)
            for request in requests
            for sibling in siblings_of(request, max(num_choices, best_of))
        )
        return Generation(completion_id, config.id, streams)


def pick_best(answers: Sequence[Answer], *, best_of: int, num_choices: int) -> list[Answer]:
    """Of each prompt's `best_of` answers those whose tokens the model thought likeliest on the average, best first."""
    if best_of <= num_choices:
        return list(answers)
    return [
        answer
        for first in range(0, len(answers), best_of)
        for answer in sorted(answers[first : first + best_of], key=_mean_logprob, reverse=True)[:num_choices]
    ]


def _mean_logprob(answer: Answer) -> float:
    """An answer that says nothing is the worst."""
    logprobs = [each.chosen.logprob for each in answer.logprobs]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf
