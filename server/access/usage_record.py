"""What one request made models do, as it is kept: tokens, times, how it ended, and its cost at the prices of then."""

from __future__ import annotations

import msgspec

from server.types import ModelKind

RUNNING = "running"
"""Not over yet: only ever in the journal."""

COMPLETED = "completed"
CLIENT_GONE = "client_gone"

SERVER_DIED = "server_died"
"""What was running when the server ended without a word; its tokens are those of at most a second before."""

TOKENS_PER_PRICE = 1_000_000


class ModelUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one model did for a request.

    Attributes:
        model: The configured id, whatever alias the request used.
        cached_tokens: Of the prompt's; they cost `cached_price` in place of `input_price`.
        input_price, output_price, cached_price: Of a million tokens, when the request came.
    """

    model: str
    kind: ModelKind
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    input_price: float = 0.0
    output_price: float = 0.0
    cached_price: float = 0.0

    @property
    def cost(self) -> float:
        total = (
            (self.prompt_tokens - self.cached_tokens) * self.input_price
            + self.cached_tokens * self.cached_price
            + self.completion_tokens * self.output_price
        )
        return total / TOKENS_PER_PRICE


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request, and all that models did for it.

    Attributes:
        id: Unique, and never the client's own: records of one id are states of one request, the last of which counts.
        at_ms: Unix milliseconds at which it came.
        sender: Who sent it behind the key, as the client's header says.
        request_id: `x-request-id`, which clients may use twice.
        status: `RUNNING`, `COMPLETED`, `CLIENT_GONE`, `SERVER_DIED`, or the code of the error that the client got.
        queue_ms, ttft_ms: Of the answer that was generated; None where none was, or its first token never came.
        uses: One for each model.
    """

    id: str
    at_ms: int
    tenant: str
    request_id: str
    path: str
    status: str
    duration_ms: float
    uses: tuple[ModelUse, ...]
    key_id: str | None = None
    sender: str | None = None
    queue_ms: float | None = None
    ttft_ms: float | None = None

    @property
    def num_tokens(self) -> int:
        return sum(use.prompt_tokens + use.completion_tokens for use in self.uses)

    @property
    def cost(self) -> float:
        return sum(use.cost for use in self.uses)
