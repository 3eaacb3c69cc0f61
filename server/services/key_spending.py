"""What the limits of keys go by: the ledger tells what a key has used today, models.yaml what tokens cost."""

from __future__ import annotations

from server.access.day_quota import Amount
from server.access.key_limiter import KeyLimiter
from server.access.usage_ledger import UsageLedger
from server.access.usage_record import ModelUse
from server.errors import ModelNotFound
from server.models.registry import ModelRegistry
from server.types import Usage


def make_key_limiter(registry: ModelRegistry, ledger: UsageLedger) -> KeyLimiter:
    async def used_since(key_id: str, _midnight_s: int) -> Amount:
        return Amount(*ledger.used_today(key_id))

    def cost_of(model: str | None, usage: Usage) -> float:
        try:
            config = registry.everything.resolve(model).config if model else None
        except ModelNotFound:  # the endpoint will say so
            return 0.0
        if config is None:
            return 0.0
        return ModelUse(
            model=config.id,
            kind=config.kind,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            input_price=config.prices.input,
            output_price=config.prices.output,
            cached_price=config.prices.cached_or_input,
        ).cost

    return KeyLimiter(used_since=used_since, cost_of=cost_of)
