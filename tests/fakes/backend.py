"""A `Backend` without a model: it keeps real cells and answers from them, so wrong bookkeeping gives wrong tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np

from server.engine.backend import BatchFailed, Logits, OutOfCells
from server.engine.batch import Batch


@dataclass(eq=False)
class Cell:
    token_id: int


class FakeBackend:
    """The next token is a hash of all tokens before it: only the right cells in the right order give the right one.

    Attributes:
        cells: Cells of each sequence id, by position; sequences may share them.
        batch_sizes: Tokens of each batch so far.
        fail_next: Make the next decode fail with `BatchFailed`.
        poison: Token id after which logits are NaN.
    """

    def __init__(
        self,
        *,
        num_cells: int = 64,
        max_sequences: int = 4,
        max_batch_tokens: int = 32,
        vocab_size: int = 50,
        has_streams: bool = False,
    ) -> None:
        self.num_cells = num_cells
        self.max_sequences = max_sequences
        self.max_batch_tokens = max_batch_tokens
        self.vocab_size = vocab_size
        self.can_share = True
        self.can_save = True
        self.has_streams = has_streams
        self.cells: dict[int, list[Cell]] = {}
        self.batch_sizes: list[int] = []
        self.fail_next = False
        self.poison: int | None = None

    def decode(self, batch: Batch) -> Logits:
        if self.fail_next:
            self.fail_next = False
            raise BatchFailed("as the test asked")
        if not self.has_streams and self.num_used_cells + batch.num_tokens > self.num_cells:
            raise OutOfCells
        self.batch_sizes.append(batch.num_tokens)
        rows = []
        rows_of = zip(batch.token_ids, batch.positions, batch.seq_ids, batch.wants_logits, strict=True)
        for token_id, position, seq_id, wants_logits in rows_of:
            assert 0 <= seq_id < self.max_sequences
            cells = self.cells.setdefault(int(seq_id), [])
            assert position == len(cells), f"sequence {seq_id} has {len(cells)} cells, got position {position}"
            cells.append(Cell(int(token_id)))
            assert not self.has_streams or len(cells) <= self.num_cells
            if wants_logits:
                tokens = [cell.token_id for cell in cells]
                row = one_hot(next_token(tokens, self.vocab_size), self.vocab_size)
                rows.append(row * np.nan if tokens[-1] == self.poison else row)
        return np.array(rows, np.float32).reshape(len(rows), self.vocab_size)

    def free(self, seq_id: int) -> None:
        self.cells.pop(seq_id, None)

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        assert not self.cells.get(target), f"sequence {target} is not empty"
        assert 0 < num_tokens <= len(self.cells[source])
        self.cells[target] = self.cells[source][:num_tokens]

    def trim(self, seq_id: int, num_tokens: int) -> None:
        assert num_tokens <= len(self.cells.get(seq_id, ()))
        self.cells[seq_id] = self.cells.get(seq_id, [])[:num_tokens]

    def save(self, seq_id: int) -> list[int]:
        return [cell.token_id for cell in self.cells[seq_id]]

    def restore(self, seq_id: int, states: Sized) -> bool:
        assert isinstance(states, list)
        assert not self.cells.get(seq_id), f"sequence {seq_id} is not empty"
        if not self.has_streams and self.num_used_cells + len(states) > self.num_cells:
            return False
        self.cells[seq_id] = [Cell(token_id) for token_id in states]
        return True

    @property
    def num_used_cells(self) -> int:
        return len({id(cell) for cells in self.cells.values() for cell in cells})


def next_token(tokens: Sequence[int], vocab_size: int) -> int:
    """The fake model: token 0 ends a text, and comes up now and then.

    Three times out of four it goes on as after the last time that its latest token came, as models that quote do; else,
    and whether it does, depends on every token before.
    """
    digest = hashlib.sha256(repr(list(tokens)).encode()).digest()
    if digest[4] % 4:
        for at in range(len(tokens) - 1, 0, -1):
            if tokens[at - 1] == tokens[-1]:
                return tokens[at]
    return int.from_bytes(digest[:4], "big") % vocab_size


def generate_alone(prompt: Sequence[int], *, max_tokens: int, vocab_size: int) -> list[int]:
    """The naive twin of the engine: one sequence, one token at a time; ends with token 0 or at `max_tokens`."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_tokens:
        tokens.append(next_token(tokens, vocab_size))
        if tokens[-1] == 0:
            break
    return tokens[len(prompt) :]


def one_hot(index: int, size: int) -> Logits:
    row = np.zeros(size, np.float32)
    row[index] = 10.0
    return row
