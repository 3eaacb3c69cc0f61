"""What the sampler remembers of one sequence: its random numbers, and which tokens it has seen. Knows no logits."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from server.engine.logprobs import Ranking
from server.engine.token_mask import TokenMask
from server.types import SamplingParams, TokenIds

OFF = math.inf
"""Value of a truncation that is switched off."""

_NUMBERS_AT_A_TIME = 64


class SamplerState:
    """Grows with the tokens of one sequence, so that a step never reads all of them again.

    Attributes:
        truncation: temperature, top_k, top_p and log(min_p); what is off is infinite.
        bias_ids, bias_values: `logit_bias` as arrays.
        seen: The tokens that penalties hit; None without penalties.
        mask: Which tokens its grammar allows; None without a grammar.
        changes_logits: Whether the sequence's logits must be changed before they are sampled.
        rankings: How likely each generated token was, by its index, if the request wants to know. Whoever reads them
            takes them out; of drafted tokens that were wrong, later ones take the place.
    """

    def __init__(self, params: SamplingParams, prompt: TokenIds, mask: TokenMask | None = None) -> None:
        self.params = params
        self.mask = mask
        self.num_generated = 0
        self.truncation = _truncation(params)
        self.bias_ids = np.array(list(params.logit_bias), np.intp)
        self.bias_values = np.array(list(params.logit_bias.values()), np.float32)
        has_penalties = params.repeat_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0
        self.seen = SeenTokens(params, prompt) if has_penalties else None
        self.changes_logits = has_penalties or bool(params.logit_bias) or params.ignore_eos or mask is not None
        self.rankings: dict[int, Ranking] = {}
        self._random = np.random.Generator(np.random.PCG64(_entropy(params.seed)))
        self._numbers = array("d")

    @property
    def has_memory(self) -> bool:
        """Whether the tokens before it change which token may come next: such a sequence is never drafted for."""
        return self.seen is not None or self.mask is not None

    def accept(self, token_id: int) -> None:
        """Take note that a token has been appended to the sequence."""
        self.num_generated += 1
        if self.seen is not None:
            self.seen.count(token_id)
        if self.mask is not None:
            self.mask.accept(token_id)

    def uniform(self, ahead: int = 0) -> float:
        """The number in [0, 1) that decides the token `ahead` places behind the next one.

        Depends on the seed and the token's index alone, however often and in whatever order it is asked for: drafts,
        preemption and company in the batch change nothing.
        """
        index = self.num_generated + ahead
        while index >= len(self._numbers):
            self._numbers.frombytes(self._random.random(_NUMBERS_AT_A_TIME).tobytes())
        return self._numbers[index]


class SeenTokens:
    """The tokens that penalties hit, each once: the generated ones, and those of the prompt if repeats are penalised.

    NOTE: repeats count in prompt and answer, as in vLLM; presence and frequency in the answer alone, as OpenAI has it.
    """

    def __init__(self, params: SamplingParams, prompt: Iterable[int]) -> None:
        self._presence_penalty = params.presence_penalty
        self._frequency_penalty = params.frequency_penalty
        prompt_ids = list(dict.fromkeys(prompt)) if params.repeat_penalty != 1 else []
        self._places = {token_id: place for place, token_id in enumerate(prompt_ids)}
        self._counts = [0] * len(prompt_ids)
        self._ids = np.array(prompt_ids, np.intp)
        self._deductions = np.zeros(len(prompt_ids), np.float32)

    @property
    def ids(self) -> npt.NDArray[np.intp]:
        return self._ids[: len(self._counts)]

    @property
    def deductions(self) -> npt.NDArray[np.float32]:
        """What presence and frequency penalties take from the logit of each of `ids`."""
        return self._deductions[: len(self._counts)]

    def count(self, token_id: int) -> None:
        place = self._places.setdefault(token_id, len(self._counts))
        if place == len(self._counts):
            self._add(token_id)
        self._counts[place] += 1
        self._deductions[place] = self._presence_penalty + self._frequency_penalty * self._counts[place]

    def _add(self, token_id: int) -> None:
        place = len(self._counts)
        if place == len(self._ids):  # double the room, so that all additions together cost no more than the last
            self._ids = np.concatenate([self._ids, np.zeros(place + 16, np.intp)])
            self._deductions = np.concatenate([self._deductions, np.zeros(place + 16, np.float32)])
        self._ids[place] = token_id
        self._counts.append(0)


def _truncation(params: SamplingParams) -> tuple[float, float, float, float]:
    return (
        params.temperature,
        params.top_k if params.top_k > 0 else OFF,
        params.top_p if params.top_p < 1 else OFF,
        math.log(params.min_p) if params.min_p > 0 else -OFF,
    )


def _entropy(seed: int | None) -> int | None:
    """numpy takes no negative seeds; clients may send them."""
    return seed if seed is None else seed & (2**64 - 1)
