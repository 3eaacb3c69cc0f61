"""One generation: its tokens, how far they are computed, and where it stands. State only; policy asks questions."""

from __future__ import annotations

from enum import Enum

from server.engine.sampler_state import SamplerState
from server.engine.token_mask import TokenMask
from server.types import DEFAULT_TENANT, SamplingParams, TokenIds, Usage


class SequenceStatus(Enum):
    WAITING = "waiting"  # owns no cells
    RUNNING = "running"  # owns a sequence id and `num_computed_tokens` cells
    FINISHED = "finished"  # owns nothing any more


class Sequence:
    """Prompt and generated tokens of one request.

    A step gives a sequence some of the tokens between `num_computed_tokens` and `num_tokens`. That one difference is
    prefill when it is large, decode when it is 1, and resumption after a preemption when it is large again.

    Args:
        prompt: At least one token.
        max_tokens: Generated tokens after which it ends, at least 1; prompt and they fit into one context.
        mask: Which tokens may be generated; None: all.
        tenant: Whose cells it may share.
        priority: Lower runs first, whatever the rest says.
        arrived_at, deadline_at: Seconds of the engine's clock; after `deadline_at` it fails.
        pins_prefix: Its cells stay in the cache for ever.

    Attributes:
        token_ids: Prompt, then generated tokens. Only appended to, by `append`.
        num_computed_tokens: Leading tokens whose cells are in the KV cache.
        num_cached_tokens: Leading tokens that were found in the cache when it first ran.
        seq_id: Its id in the KV cache while running, else None.
    """

    def __init__(
        self,
        request_id: str,
        prompt: TokenIds,
        sampling: SamplingParams,
        *,
        max_tokens: int,
        mask: TokenMask | None = None,
        tenant: str = DEFAULT_TENANT,
        priority: int = 0,
        arrived_at: float = 0.0,
        deadline_at: float = float("inf"),
        pins_prefix: bool = False,
    ) -> None:
        assert prompt
        assert max_tokens > 0
        self.request_id = request_id
        self.max_tokens = max_tokens
        self.tenant = tenant
        self.priority = priority
        self.arrived_at = arrived_at
        self.deadline_at = deadline_at
        self.pins_prefix = pins_prefix
        self.sampler_state = SamplerState(sampling, prompt, mask)
        self.token_ids = list(prompt)
        self.num_prompt_tokens = len(prompt)
        self.num_computed_tokens = 0
        self.num_cached_tokens: int | None = None
        self.seq_id: int | None = None
        self.status = SequenceStatus.WAITING

    def append(self, token_id: int) -> None:
        """Take a generated token."""
        self.token_ids.append(token_id)
        self.sampler_state.accept(token_id)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_remaining(self) -> int:
        """Tokens still to compute before the next one can be sampled; at least 1 while running."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_decoding(self) -> bool:
        return len(self.token_ids) - self.num_computed_tokens == 1 and len(self.token_ids) > self.num_prompt_tokens

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
