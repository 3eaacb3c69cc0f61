"""An encoder without a model: a text's tokens are its words, its vector is a hash of them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np

from server.encoders.encoder import EncodedItem, Rows, Texts, TokenBudget
from server.errors import ContextLengthExceeded
from server.types import ModelFacts


def fake_vector(text: str, dimensions: int = 8) -> Rows:
    """The unit vector that `FakeEncoder` gives to a text, whatever its neighbours."""
    digest = hashlib.blake2b(text.encode(), digest_size=dimensions).digest()
    vector = np.frombuffer(digest, dtype=np.uint8).astype(np.float32) + 1
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


class FakeEncoder:
    """Deterministic `Encoder` of texts.

    Attributes:
        batches: The texts of every forward pass so far, failed ones included.
        entered: Set when a forward pass begins.
        gate: Forward passes wait for it; set by default.
        poison: A forward pass with a text that contains this raises.
        num_operations: As a test says; see `ShowsProgress`.
    """

    def __init__(
        self, *, max_tokens: int = 256, max_batch_tokens: int = 32, is_packed: bool = False, poison: str | None = None
    ) -> None:
        self.facts = ModelFacts(context_length=max_tokens, dimensions=8, architecture="fake")
        self.budget = TokenBudget(max_batch_tokens, is_packed=is_packed)
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.poison = poison
        self.num_operations = 0
        self._words: dict[str, int] = {}
        self._by_id: list[str] = []
        self._lock = threading.Lock()

    def tokenize(self, inputs: Texts) -> list[EncodedItem]:
        """Knows texts only, and the truncations "error", "end" and "mean"."""
        items = []
        for index, text in enumerate(inputs.inputs):
            assert isinstance(text, str)
            words = ((inputs.prompt or "") + text).split()
            limit = self.facts.context_length
            if len(words) > limit and inputs.truncate == "error":
                raise ContextLengthExceeded(f"input[{index}] has {len(words)} tokens but accepts {limit}")
            starts = range(0, len(words), limit) if inputs.truncate == "mean" else [0]
            is_truncated = len(words) > limit and inputs.truncate == "end"
            for start in starts:
                kept = [self._id(word) for word in words[start : start + limit]]
                items.append(EncodedItem(kept, [0] * len(kept), is_truncated, is_continuation=start > 0))
        return items

    def forward(self, items: Sequence[EncodedItem]) -> Rows:
        texts = [" ".join(self._by_id[i] for i in item.token_ids) for item in items]
        self.batches.append(texts)
        self.entered.set()
        self.gate.wait()
        if self.poison is not None and any(self.poison in text for text in texts):
            raise RuntimeError("poisoned")
        return np.stack([fake_vector(text) for text in texts])

    def _id(self, word: str) -> int:
        with self._lock:
            if word not in self._words:
                self._words[word] = len(self._by_id)
                self._by_id.append(word)
            return self._words[word]
