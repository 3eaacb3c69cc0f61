"""One generation: its tokens, how far they are computed, and where it stands. State only; policy asks questions."""

from __future__ import annotations

from enum import Enum

import msgspec

from server.engine.sampler_state import SamplerState
from server.engine.token_mask import TokenMask
from server.types import DEFAULT_TENANT, SamplingParams, Timings, TokenIds, Usage


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
        tenant: Whose cells it may share, and on whose account it runs.
        weight: Share that the tenant gets, against the weights of the others who want it.
        priority: Lower runs first, whatever the rest says.
        arrived_at, deadline_at: Seconds of the engine's clock; after `deadline_at` it fails.
        tokenize_s: How long it took to make the prompt.
        pins_prefix: Its cells stay in the cache for ever.
        prediction: What will probably be generated; for the drafter.

    Attributes:
        token_ids: Prompt, then generated tokens. Only appended to, by `append`.
        num_computed_tokens: Leading tokens whose cells are in the KV cache.
        num_cached_tokens: Leading tokens that were found in the cache when it first ran.
        seq_id: Its id in the KV cache while running, else None.
        started_at, first_token_at, last_token_at: When its first step began, and when its tokens came; None before.
        num_accepted, num_rejected: Drafted tokens that were computed, and turned out right or wrong.
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
        weight: float = 1.0,
        priority: int = 0,
        arrived_at: float = 0.0,
        deadline_at: float = float("inf"),
        tokenize_s: float = 0.0,
        pins_prefix: bool = False,
        prediction: TokenIds | None = None,
    ) -> None:
        assert prompt
        assert max_tokens > 0
        self.request_id = request_id
        self.max_tokens = max_tokens
        self.tenant = tenant
        self.weight = weight
        self.priority = priority
        self.arrived_at = arrived_at
        self.deadline_at = deadline_at
        self.tokenize_s = tokenize_s
        self.pins_prefix = pins_prefix
        self.prediction = prediction or []
        self.sampler_state = SamplerState(sampling, prompt, mask)
        self.token_ids = list(prompt)
        self.num_prompt_tokens = len(prompt)
        self.num_computed_tokens = 0
        self.num_cached_tokens: int | None = None
        self.seq_id: int | None = None
        self.status = SequenceStatus.WAITING
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.num_accepted = 0
        self.num_rejected = 0

    def append(self, token_id: int) -> None:
        """Take a generated token."""
        self.token_ids.append(token_id)
        self.sampler_state.accept(token_id)

    def note_start(self, now: float) -> None:
        """Its first step begins, or another one after a preemption."""
        if self.started_at is None:
            self.started_at = now

    def note_tokens(self, now: float) -> None:
        """A step has given it tokens."""
        if self.first_token_at is None:
            self.first_token_at = now
        self.last_token_at = now

    def note_draft(self, *, num_drafted: int, num_accepted: int) -> None:
        self.num_accepted += num_accepted
        self.num_rejected += num_drafted - num_accepted

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
        usage = Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=self.num_generated,
            cached_tokens=self.num_cached_tokens or 0,
        )
        if not self.prediction:
            return usage
        return msgspec.structs.replace(
            usage, accepted_prediction_tokens=self.num_accepted, rejected_prediction_tokens=self.num_rejected
        )

    @property
    def timings(self) -> Timings | None:
        """Where its time went, up to its last token; None before its first."""
        if self.started_at is None or self.first_token_at is None or self.last_token_at is None:
            return None
        return Timings(
            tokenize_ms=self.tokenize_s * 1000,
            queue_ms=max(0.0, self.started_at - self.arrived_at - self.tokenize_s) * 1000,
            prefill_ms=(self.first_token_at - self.started_at) * 1000,
            decode_ms=(self.last_token_at - self.first_token_at) * 1000,
        )
