"""What is handed to llama.cpp, by a context that only notes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.bindings.llama_context import DECODED, NO_KV_SLOT
from server.engine.backend import BatchFailed, OutOfCells
from server.engine.batch import Batch
from server.engine.llama_backend import LlamaBackend

VOCAB_SIZE = 4


class NotingContext:
    """Gives each token that wants logits a row of its own id; `full_at` is the call that finds no room."""

    def __init__(self, *, streams: bool, full_at: int | None = None, can_cut: bool = True) -> None:
        self.options = SimpleNamespace(streams=streams, max_sequences=4, max_batch_tokens=64)
        self.num_cells = 64
        self.can_share_prefixes = True
        self.has_window = False
        self.vocab_size = VOCAB_SIZE
        self.calls: list[list[tuple[int, int, int]]] = []
        self.removed: list[tuple[int, int]] = []
        self._full_at = full_at
        self._can_cut = can_cut
        self._rows: list[int] = []

    def decode(self, token_ids: Any, positions: Any, seq_ids: Any, wants_logits: Any) -> int:
        self.calls.append(list(zip(seq_ids.tolist(), positions.tolist(), token_ids.tolist(), strict=True)))
        self._rows = token_ids[wants_logits].tolist()
        return NO_KV_SLOT if len(self.calls) == self._full_at else DECODED

    def logits(self, num_outputs: int) -> Any:
        assert num_outputs == len(self._rows)
        return np.repeat(np.array(self._rows, np.float32)[:, None], VOCAB_SIZE, axis=1).reshape(-1, VOCAB_SIZE)

    def remove(self, seq_id: int, *, start: int = 0) -> bool:
        self.removed.append((seq_id, start))
        return self._can_cut


def mixed_batch() -> Batch:
    """Sequence 0 decodes, 1 is in the middle of its prompt, 2 at the end of it, 3 decodes with a draft."""
    batch = Batch(64)
    batch.add(0, [10], start=7, num_outputs=1)
    batch.add(1, [20, 21, 22], start=0, num_outputs=0)
    batch.add(2, [30, 31], start=4, num_outputs=1)
    batch.add(3, [40, 41], start=9, num_outputs=2)
    return batch


def test_streams_compute_decodes_apart_from_prompts() -> None:
    context = NotingContext(streams=True)

    logits = LlamaBackend(context).decode(mixed_batch())  # type: ignore[arg-type]

    assert [[token for _, _, token in call] for call in context.calls] == [[10, 40, 41], [20, 21, 22, 30, 31]]
    assert logits[:, 0].tolist() == [10, 31, 40, 41]


def test_one_pool_computes_all_at_once() -> None:
    context = NotingContext(streams=False)

    logits = LlamaBackend(context).decode(mixed_batch())  # type: ignore[arg-type]

    assert len(context.calls) == 1
    assert logits[:, 0].tolist() == [10, 31, 40, 41]


@pytest.mark.parametrize("runs", [[([10], 1), ([11], 1)], [([10, 11], 0)]])
def test_what_is_of_one_kind_is_one_batch(runs: list[tuple[list[int], int]]) -> None:
    context, batch = NotingContext(streams=True), Batch(64)
    for seq_id, (token_ids, num_outputs) in enumerate(runs):
        batch.add(seq_id, token_ids, start=0, num_outputs=num_outputs)

    LlamaBackend(context).decode(batch)  # type: ignore[arg-type]

    assert len(context.calls) == 1


def test_without_room_for_the_prompts_the_decodes_are_undone() -> None:
    context = NotingContext(streams=True, full_at=2)

    with pytest.raises(OutOfCells):
        LlamaBackend(context).decode(mixed_batch())  # type: ignore[arg-type]

    assert context.removed == [(0, 7), (3, 9)]


def test_decodes_that_cannot_be_undone_fail_the_batch() -> None:
    context = NotingContext(streams=True, full_at=2, can_cut=False)

    with pytest.raises(BatchFailed):
        LlamaBackend(context).decode(mixed_batch())  # type: ignore[arg-type]
