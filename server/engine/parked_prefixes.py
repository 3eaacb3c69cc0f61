"""Computed beginnings of prompts that were copied out of the KV cache, and come back when somebody asks for them.

A copy takes no sequence id, costs nobody any attention, and comes back some hundred times faster than it was computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from server.engine.backend import CellStates
from server.engine.prefix_cache import PrefixCache
from server.types import TokenIds

MIN_TOKENS = 16
"""What is shorter is computed again, and so is what has less in common with a copy: that takes one step."""

MIN_NEW_SHARE = 1 / 8
"""Of a prompt, to be in no other copy: questions on one long document would fill the memory with that. What is left out
is computed again, and is no more than this share."""


@dataclass(frozen=True, slots=True)
class Parked:
    """The cells of a finished sequence, for these tokens."""

    token_ids: TokenIds
    states: CellStates


class ParkedPrefixes:
    """Copies up to a number of bytes; the one used longest ago goes first.

    Args:
        max_bytes: Of all copies together; more than 0.
        min_tokens: What is shorter is not worth a copy, nor its coming back.

    Attributes:
        num_bytes: Of all copies.
        min_tokens: As given.
    """

    def __init__(self, max_bytes: int, *, min_tokens: int = MIN_TOKENS) -> None:
        assert max_bytes > 0
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._bytes_per_token = 0.0  # of the last copy
        self.min_tokens = min_tokens
        self._index = PrefixCache()
        self._parked: dict[int, Parked] = {}  # by holder in the index; used longest ago first
        self._ids = itertools.count()

    def may_hold(self, num_tokens: int) -> bool:
        """Whether a copy for so many tokens is not larger than all may be, as far as earlier ones tell."""
        return num_tokens * self._bytes_per_token <= self._max_bytes

    def wants(self, token_ids: Sequence[int], *, tenant: str) -> bool:
        """Whether a copy for these tokens would be worth its bytes.

        Not if it would be larger than all may be, or if little would be found that others do not begin with. One that
        continues another one takes its place, and so costs next to nothing.
        """
        if not self.may_hold(len(token_ids)):
            return False
        match = self._index.match(token_ids, tenant=tenant)
        num_new = len(token_ids) - match.num_tokens
        if num_new >= max(self.min_tokens, len(token_ids) * MIN_NEW_SHARE):
            return True
        if num_new >= self.min_tokens and self._index.ending_at(match):
            return True
        if match.num_tokens:
            self._use(next(iter(match.holders)))
        return False

    def put(self, parked: Parked, *, tenant: str) -> None:
        """Keep a copy, in place of those that it continues; not if it is larger than all may be."""
        self._bytes_per_token = len(parked.states) / len(parked.token_ids)
        if len(parked.states) > self._max_bytes:
            return
        match = self._index.match(parked.token_ids, tenant=tenant)
        for continued in self._index.ending_at(match):
            self._drop(continued)
        parked_id = next(self._ids)
        match = self._index.match(parked.token_ids, tenant=tenant)
        self._index.open(parked_id, match)
        if match.num_tokens < len(parked.token_ids):
            self._index.extend(parked_id, parked.token_ids[match.num_tokens :])
        self._parked[parked_id] = parked
        self.num_bytes += len(parked.states)
        while self.num_bytes > self._max_bytes:
            self._drop(next(iter(self._parked)))

    def find(self, token_ids: Sequence[int], *, tenant: str) -> tuple[int, Parked] | None:
        """Return how many of some tokens copies begin with, and the shortest of them; None below `min_tokens`."""
        if not self._parked:
            return None
        match = self._index.match(token_ids, tenant=tenant)
        if match.num_tokens < self.min_tokens:
            return None
        parked_id = min(match.holders, key=lambda each: len(self._parked[each].token_ids))
        return match.num_tokens, self._parked[parked_id]

    def use(self, parked: Parked) -> None:
        """Take note that a copy was wanted."""
        self._use(next(each for each, other in self._parked.items() if other is parked))

    def drop(self, parked: Parked) -> None:
        """Forget a copy that is of no use, if it is still there."""
        for parked_id, other in list(self._parked.items()):
            if other is parked:
                self._drop(parked_id)

    def check_integrity(self) -> None:
        """Assert that all counts are true: for tests and idle moments."""
        self._index.check_integrity()
        assert self.num_bytes == sum(len(each.states) for each in self._parked.values())
        assert self.num_bytes <= self._max_bytes

    def _use(self, parked_id: int) -> None:
        self._parked[parked_id] = self._parked.pop(parked_id)

    def _drop(self, parked_id: int) -> None:
        self._index.make_idle(parked_id)
        self._index.release(parked_id)
        self.num_bytes -= len(self._parked.pop(parked_id).states)
