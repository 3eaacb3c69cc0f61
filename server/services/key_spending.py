"""What the limits of keys go by: the ledger tells what a key has used today, models.yaml what tokens cost."""

from __future__ import annotations

from collections.abc import Iterable

from server.access.day_quota import Amount
from server.access.key_limiter import KeyLimiter
from server.access.usage_ledger import UsageLedger
from server.access.usage_record import ModelUse
from server.config.schema import ModelConfig
from server.errors import ModelNotFound
from server.models.registry import ModelRegistry
from server.types import ModelKind, Usage


def make_key_limiter(registry: ModelRegistry, ledger: UsageLedger) -> KeyLimiter:
    async def used_since(key_id: str, _midnight_s: int) -> Amount:
        return Amount(*ledger.used_today(key_id))

    def cost_of(model: str | None, usage: Usage) -> float:
        try:
            configs = _meant(registry, model, answers=usage.completion_tokens > 0)
        except ModelNotFound:  # the endpoint will say so
            return 0.0
        return max((_cost(config, usage) for config in configs), default=0.0)

    return KeyLimiter(used_since=used_since, cost_of=cost_of)


def _meant(registry: ModelRegistry, name: str | None, *, answers: bool) -> Iterable[ModelConfig]:
    """The models that a request may be about: the one that it names, else the first of each kind that can do it."""
    if name is not None:
        rag_model = registry.rag_model(name)
        return [(registry.chat_of(rag_model) if rag_model else registry.resolve(name)).config]
    first: dict[ModelKind, ModelConfig] = {}
    for entry in registry.entries:
        if (entry.config.kind == "chat") is answers:
            first.setdefault(entry.config.kind, entry.config)
    return first.values()


def _cost(config: ModelConfig, usage: Usage) -> float:
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
