"""What limits go by, joined: the usage ledger, and the prices in models.yaml."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.access.key_account import Expected
from server.access.key_limiter import KeyLimiter
from server.access.usage_ledger import UsageLedger
from server.caller import Caller, KeyLimits
from server.config.rag_section import RagModel
from server.config.schema import ModelConfig, Prices
from server.errors import QuotaExceeded
from server.models.registry import ModelEntry, ModelRegistry
from server.services.key_spending import make_key_limiter
from tests.fakes.models import FakeModel
from tests.fakes.usage import open_ledger, record, use

CONFIGS = (
    ModelConfig(
        id="talker",
        kind="chat",
        backend="llama_cpp",
        source="file:x.gguf",
        aliases=("gpt-4o",),
        prices=Prices(input=100_000, output=500_000),
    ),
    ModelConfig(
        id="embedder",
        kind="embedding",
        backend="sentence_transformers",
        source="file:x",
        prices=Prices(input=600_000),
    ),
    ModelConfig(id="ranker", kind="rerank", backend="sentence_transformers", source="file:x"),
)
HANDBOOK = RagModel(id="handbook", chat_model="talker", vector_stores=("manuals",))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[UsageLedger]:
    async with open_ledger(tmp_path) as ledger:
        yield ledger


@pytest.fixture
def limiter(ledger: UsageLedger) -> KeyLimiter:
    registry = ModelRegistry([ModelEntry(config, FakeModel()) for config in CONFIGS], [HANDBOOK])
    return make_key_limiter(registry, ledger)


def caller(**limits: float) -> Caller:
    return Caller(key_id="key_1", limits=KeyLimits(**limits))  # type: ignore[arg-type]  # numbers of either kind


async def reserve(limiter: KeyLimiter, expected: Expected) -> None:
    claim = await limiter.admit(caller(cost_per_day=1))
    assert claim is not None
    claim.reserve(expected)


async def test_a_quota_goes_on_from_what_the_ledger_has_of_the_key(limiter: KeyLimiter, ledger: UsageLedger) -> None:
    ledger.settle(record(use(prompt=10, completion=5), key_id="key_1"))
    ledger.settle(record(use(prompt=10, completion=5), key_id="key_2"))

    with pytest.raises(QuotaExceeded, match="15 of 15 tokens"):
        await limiter.admit(caller(tokens_per_day=15))


@pytest.mark.parametrize("name", ["talker", "gpt-4o", "handbook", None])
async def test_an_answer_costs_what_the_chat_model_does_by_whatever_name(limiter: KeyLimiter, name: str | None) -> None:
    expected = Expected(model=name, num_prompt_tokens=1, num_answers=1, max_answer_tokens=1)
    await reserve(limiter, expected)

    with pytest.raises(QuotaExceeded, match=r"0\.6000 of 1 in cost, and this request may cost 0\.6000"):
        await reserve(limiter, expected)


@pytest.mark.parametrize("name", ["embedder", None])
async def test_texts_without_an_answer_cost_what_the_encoder_does(limiter: KeyLimiter, name: str | None) -> None:
    """Without a name it may be the dearer one: the embedding model, or the reranker, which is free."""
    expected = Expected(model=name, num_prompt_tokens=1)
    await reserve(limiter, expected)

    with pytest.raises(QuotaExceeded, match=r"may cost 0\.6000"):
        await reserve(limiter, expected)


@pytest.mark.parametrize("name", ["ranker", "nobody"])
async def test_what_is_free_or_does_not_exist_costs_nothing(limiter: KeyLimiter, name: str) -> None:
    dear = Expected(model="talker", num_prompt_tokens=10)
    await reserve(limiter, Expected(model=name, num_prompt_tokens=1_000_000))

    await reserve(limiter, dear)

    with pytest.raises(QuotaExceeded, match=r"1\.0000 of 1 in cost"):
        await reserve(limiter, Expected(model="talker", num_prompt_tokens=1))
