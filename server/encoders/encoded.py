"""From the rows of items to the answer of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.encoders.encoder import EncodedItem, Rows


@dataclass(frozen=True)
class Encoded:
    """The answer to one request.

    Attributes:
        rows: float32 [num_inputs, dimensions] or [num_inputs], in input order, NaN for inputs that were not computed in
            time and are not counted below; owned by the receiver.
        num_prompt_tokens: Tokens of all inputs after truncation.
        num_truncated: Inputs that lost text to truncation.
        num_cached: Inputs that no forward pass was made for.
        num_cached_tokens: Tokens that no forward pass was made for.
    """

    rows: Rows
    num_prompt_tokens: int
    num_truncated: int
    num_cached: int
    num_cached_tokens: int


def assemble(items: Sequence[EncodedItem], rows: Sequence[Rows | None], is_cached: Sequence[bool]) -> Encoded:
    """Make the answer from the rows of all items, of which one at least is there."""
    starts = [position for position, item in enumerate(items) if not item.is_continuation]
    missing = np.full_like(next(row for row in rows if row is not None), np.nan)
    of_items = np.stack([missing if row is None else row for row in rows])
    # An item that was to share another's row counts as cached from the start, whether or not that row came in time.
    has_row = np.array([row is not None for row in rows])
    was_cached = has_row & np.array(is_cached)
    num_tokens = np.array([item.num_tokens for item in items])
    return Encoded(
        rows=of_items if len(starts) == len(items) else _mean_of_windows(items, of_items, starts),
        num_prompt_tokens=int(num_tokens[has_row].sum()),
        num_truncated=sum(item.is_truncated for item, row in zip(items, rows, strict=True) if row is not None),
        num_cached=int(np.logical_and.reduceat(was_cached, starts).sum()),
        num_cached_tokens=int(num_tokens[was_cached].sum()),
    )


def _mean_of_windows(items: Sequence[EncodedItem], rows: Rows, starts: list[int]) -> Rows:
    """Average the windows of each input, weighted by their tokens."""
    weights = np.array([[item.num_tokens] for item in items], dtype=np.float32)
    sums = np.add.reduceat(rows * weights, starts) / np.add.reduceat(weights, starts)
    return np.asarray(sums, dtype=np.float32)


def unit_rows(rows: Rows) -> Rows:
    """Scale rows to L2 norm 1."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)
