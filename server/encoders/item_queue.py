"""Which items go into the next batch. Knows no threads, no model and no results.

A batch is padded to its longest item, so it should hold items of like length; and nobody may wait for ever.
Both follow from one rule: take the oldest item, then its nearest neighbours by length, from whatever request,
until the padded batch would exceed the token budget. An item with k older ones waits for at most k batches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.encoders.encoder import EncodedItem

OwnerT = TypeVar("OwnerT")


@dataclass(frozen=True, slots=True, eq=False)
class QueuedItem(Generic[OwnerT]):
    """Item `index` of the request `owner`. `age_rank` counts items in the order in which they arrived."""

    owner: OwnerT
    index: int
    encoded: EncodedItem
    age_rank: int

    @property
    def num_tokens(self) -> int:
        return self.encoded.num_tokens


class ItemQueue(Generic[OwnerT]):
    """Waiting items, kept by length and by age at once. Not thread-safe: the batcher's lock guards it."""

    def __init__(self) -> None:
        self._by_length: list[QueuedItem[OwnerT]] = []
        self._by_age: OrderedDict[int, QueuedItem[OwnerT]] = OrderedDict()
        self._next_rank = 0

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, owner: OwnerT, encoded: Iterable[EncodedItem]) -> None:
        """Queue all items of a request, in order."""
        for index, item in enumerate(encoded):
            queued = QueuedItem(owner, index, item, self._next_rank)
            self._next_rank += 1
            self._by_age[queued.age_rank] = queued
            self._by_length.append(queued)
        self._by_length.sort(key=_length_then_age)

    def drop(self, owner: OwnerT) -> None:
        """Forget the waiting items of a request that has ended."""
        self._by_length = [item for item in self._by_length if item.owner is not owner]
        self._by_age = OrderedDict((item.age_rank, item) for item in self._by_age.values() if item.owner is not owner)

    def take_batch(self, max_batch_tokens: int) -> list[QueuedItem[OwnerT]]:
        """Remove and return the next batch, shortest item first; `max_len * num_items <= max_batch_tokens`.

        The oldest item is always in it: alone, if it is longer than the budget. The queue must not be empty.
        """
        start, stop = self._span_around_oldest(max_batch_tokens)
        batch = self._by_length[start:stop]
        del self._by_length[start:stop]
        for item in batch:
            del self._by_age[item.age_rank]
        return batch

    def _span_around_oldest(self, max_batch_tokens: int) -> tuple[int, int]:
        """Grow `[start, stop)` of the items by length, nearest first, while the padded batch fits the budget."""
        items = self._by_length
        oldest = next(iter(self._by_age.values()))
        start = bisect_left(items, _length_then_age(oldest), key=_length_then_age)
        stop = start + 1
        while True:
            # The longest of the span is its last item, so a shorter one costs no new padding for the others.
            num_items = stop - start + 1
            can_add_shorter = start > 0 and items[stop - 1].num_tokens * num_items <= max_batch_tokens
            can_add_longer = stop < len(items) and items[stop].num_tokens * num_items <= max_batch_tokens
            if can_add_shorter and can_add_longer:
                below = oldest.num_tokens - items[start - 1].num_tokens
                above = items[stop].num_tokens - oldest.num_tokens
                can_add_shorter = below <= above
            if can_add_shorter:
                start -= 1
            elif can_add_longer:
                stop += 1
            else:
                return start, stop


def _length_then_age(item: QueuedItem[OwnerT]) -> tuple[int, int]:
    return item.num_tokens, item.age_rank
