"""One generation: its tokens, how far they are computed, and where it stands. State only; policy asks questions."""

from __future__ import annotations

from enum import Enum

import numpy as np

from server.engine.detokenizer import Detokenizer
from server.types import SamplingParams, TokenIds, Usage


class SequenceStatus(Enum):
    WAITING = "waiting"  # owns no cells
    RUNNING = "running"  # owns a sequence id and `num_computed_tokens` cells
    FINISHED = "finished"  # owns nothing any more


class Sequence:
    """Prompt and generated tokens of one request.

    A step gives a sequence some of the tokens between `num_computed_tokens` and `num_tokens`. That one difference is
    prefill when it is large, decode when it is 1, and resumption after a preemption when it is large again.

    Attributes:
        token_ids: Prompt, then generated tokens. Only appended to.
        num_computed_tokens: Leading tokens whose cells are in the KV cache.
        num_cached_tokens: Leading tokens that were found in the cache when it first ran.
        seq_id: Its id in the KV cache while running, else None.
    """

    def __init__(
        self, request_id: str, prompt: TokenIds, sampling: SamplingParams, *, max_tokens: int, detokenizer: Detokenizer
    ) -> None:
        assert prompt
        self.request_id = request_id
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.detokenizer = detokenizer
        self.token_ids = list(prompt)
        self.num_prompt_tokens = len(prompt)
        self.num_computed_tokens = 0
        self.num_cached_tokens: int | None = None
        self.seq_id: int | None = None
        self.status = SequenceStatus.WAITING
        self.random = np.random.Generator(np.random.PCG64(_entropy(sampling.seed)))

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_remaining(self) -> int:
        """Tokens still to compute before the next one can be sampled; at least 1 while running."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_decoding(self) -> bool:
        return self.num_remaining == 1 and self.num_generated > 0

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def generated(self) -> TokenIds:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=self.num_generated,
            cached_tokens=self.num_cached_tokens or 0,
        )


def _entropy(seed: int | None) -> int | None:
    """numpy takes no negative seeds; clients may send them."""
    return seed if seed is None else seed & (2**64 - 1)
