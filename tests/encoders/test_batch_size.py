from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from server.encoders.batch_size import BatchSize, find_batch_size
from server.encoders.encoder import EncodedItem, EncoderBroken, Rows, Texts, TokenBudget
from server.types import ModelFacts

SIZES = (4096, 8192, 16_384, 32_768)
ITEMS = [EncodedItem([0] * length, []) for length in (10, 14, 20, 40, 90, 150, 200, 260)]


class Gpu:
    """A batch takes so long however small it is, and each token computed besides a little. Its own clock goes on then.

    Attributes:
        sizes: Tokens of each batch, padding included.
    """

    facts = ModelFacts(context_length=512)

    def __init__(
        self, *, batch_s: float, token_s: float = 1e-6, is_packed: bool = False, memory_tokens: int = 1 << 30
    ) -> None:
        self.budget = TokenBudget(1024, is_packed=is_packed)
        self.sizes: list[int] = []
        self.failure: Exception = RuntimeError("out of memory")
        self.now_s = 0.0
        self._batch_s = batch_s
        self._token_s = token_s
        self._memory_tokens = memory_tokens

    def tokenize(self, _inputs: Texts) -> list[EncodedItem]:
        return ITEMS

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        lengths = [item.num_tokens for item in items]
        self.sizes.append(sum(lengths) if self.budget.is_packed else max(lengths) * len(lengths))
        if self.sizes[-1] > self._memory_tokens:
            raise self.failure
        self.now_s += self._batch_s + self._token_s * self.sizes[-1]
        return np.zeros(len(items), np.float32)

    def find(self) -> BatchSize:
        return find_batch_size(self, ITEMS, SIZES, lambda: self.now_s)


def test_what_costs_as_much_for_each_token_is_computed_in_the_smallest_batches() -> None:
    gpu = Gpu(batch_s=0)

    assert gpu.find().max_tokens == 4096
    assert max(gpu.sizes) <= 8192  # and the next size is the last that is tried


def test_batches_grow_until_twice_as_much_brings_no_tenth() -> None:
    """Of n tokens it takes 2 ms and n us: 16,384 are 15 % faster than half of it, and twice that only 8 % more."""
    assert Gpu(batch_s=0.002, is_packed=True).find().max_tokens == 16_384


def test_where_every_size_is_worth_it_the_largest_is_taken() -> None:
    assert Gpu(batch_s=1, is_packed=True).find().max_tokens == SIZES[-1]


def test_packing_shows_what_it_is_worth() -> None:
    """Padded, a queue of mixed lengths makes many small batches; laid end to end, a few full ones."""
    padded, packed = (Gpu(batch_s=0.01, is_packed=is_packed).find() for is_packed in (False, True))

    assert packed.inputs_per_s > 1.5 * padded.inputs_per_s


def test_what_does_not_fit_into_memory_is_not_taken() -> None:
    assert Gpu(batch_s=1, is_packed=True, memory_tokens=10_000).find().max_tokens == 8192


def test_a_device_for_which_all_is_too_large_says_so() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        Gpu(batch_s=1, memory_tokens=10).find()


def test_a_broken_device_is_no_lack_of_memory() -> None:
    gpu = Gpu(batch_s=1, is_packed=True, memory_tokens=10_000)
    gpu.failure = EncoderBroken("the GPU failed")

    with pytest.raises(EncoderBroken):
        gpu.find()
