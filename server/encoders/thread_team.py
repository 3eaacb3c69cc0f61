"""Shares a batch among threads, so that they meet once a batch and not after every operation.

Libraries share single operations: hundreds of meetings a batch, and at each the others wait for the one whose core the
operating system has just given to somebody else. Where cores are contended (the chat model's worker, other models) that
costs most of the time, and what is burnt while waiting others lack. Figures: docs/decisions/0011-encoder-kernels.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from server.encoders.encoder import EncodedItem, Rows

MIN_WORK = 1_000_000_000
"""Multiplications that are worth a thread: 10 to 50 milliseconds."""

MAX_PARTS = 8
"""Most threads that compute parts; more cores help within the parts. Between operations only one can run Python."""

Compute = Callable[[Sequence[EncodedItem]], Rows]


class ThreadTeam:
    """Runs forward passes on up to `num_threads` cores."""

    def __init__(self, num_threads: int, *, work_per_token: int, limit_threads: Callable[[int], object]) -> None:
        """Start no threads yet.

        Args:
            work_per_token: Multiplications of a forward pass for a token.
            limit_threads: Sets among how many threads operations that the calling thread begins are shared.
        """
        self._num_parts = min(num_threads, MAX_PARTS)
        self._work_per_token = work_per_token
        # Each thread keeps its limit for good: to change it costs torch all that it has prepared.
        self._for_parts = ThreadPoolExecutor(
            self._num_parts, "encoder-team", initializer=limit_threads, initargs=(num_threads // self._num_parts,)
        )
        self._for_one = ThreadPoolExecutor(1, "encoder-alone", initializer=limit_threads, initargs=(num_threads,))

    def run(self, compute: Compute, items: Sequence[EncodedItem]) -> Rows:
        """Compute the rows of items, in their order. `compute` is called for parts of them, on several threads."""
        num_worth = self._work_per_token * sum(item.num_tokens for item in items) // MIN_WORK
        num_parts = min(len(items), num_worth, self._num_parts)
        if num_parts <= 1:
            pool = self._for_one if num_worth > 1 else self._for_parts
            return pool.submit(compute, items).result()
        order = sorted(range(len(items)), key=lambda index: items[index].num_tokens)
        parts = _split(order, [items[index].num_tokens for index in order], num_parts)
        futures = [self._for_parts.submit(compute, [items[index] for index in part]) for part in parts]
        rows = np.concatenate([future.result() for future in futures])
        in_order = np.empty_like(rows)
        in_order[order] = rows
        return in_order


def _split(order: list[int], num_tokens: list[int], num_parts: int) -> list[list[int]]:
    """Cut `order` into up to `num_parts` parts of about as many tokens each: an item goes where its middle lies."""
    middles = np.cumsum(num_tokens) - np.array(num_tokens) / 2
    owners = (middles * num_parts / sum(num_tokens)).astype(int).tolist()
    parts = [[index for index, owner in zip(order, owners, strict=True) if owner == part] for part in range(num_parts)]
    return [part for part in parts if part]
