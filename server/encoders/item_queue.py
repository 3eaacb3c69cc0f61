"""Which items go into the next batch. Knows no threads, no model and no results.

Interactive items come before bulk ones. Within a lane nobody waits for ever, and a batch, which is padded to its
longest item, should hold items of like length. All follow from one rule: take the first item of the most urgent lane,
then its nearest neighbours by length, from whatever request, the urgent lane's first, until the budget is full or
padding would cost more than `MAX_PADDING`. Bulk items, which interactive ones pass by, come first in every so many
batches.

The first item is the one that is due first. Requests are due when they arrive, but only with their first item: the
others follow at a distance, so that short requests need not wait for the end of a long one, and the long one gets on
however many of them there are.

Where several tenants want something in a lane, all that holds for each tenant's items alone: the first item is of the
tenant that has had fewest tokens, and the batch is filled with its own items before others'.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from server.encoders.encoder import EncodedItem, TokenBudget
from server.fair_shares import FairShares
from server.types import DEFAULT_TENANT, Lane

MAX_PADDING = 0.1
"""Most of a batch that may be padding. A batch of few short items costs less than one that is filled with air."""

MAX_BULK_PASSED_OVER = 8
"""After so many batches in a row that began with an interactive item, one begins with the first bulk item."""

TURN_SPACING = 4
"""A request's items are due so many departures from their lane apart: it gets one in five where as many short requests
arrive as can be computed. Most of a long request's items leave earlier, for their length."""

OwnerT = TypeVar("OwnerT")


@dataclass(slots=True, eq=False)
class QueuedItem(Generic[OwnerT]):
    """A waiting item.

    Attributes:
        tenant: On whose account it is computed.
        in_order: Whether it keeps its place among others of the kind, and is never picked for its length.
        due: How many items will have left its tenant's queue when its turn comes, if it is not taken before.
        rank: Counts items in the order in which they arrived.
    """

    owner: OwnerT
    encoded: EncodedItem
    lane: Lane
    tenant: str
    weight: float
    in_order: bool
    due: int
    rank: int

    @property
    def num_tokens(self) -> int:
        return self.encoded.num_tokens

    @property
    def turn(self) -> tuple[int, int]:
        return self.due, self.rank


class ItemQueue(Generic[OwnerT]):
    """Waiting items. Not thread-safe: the batcher's lock guards it."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, _Lane[OwnerT]] = {"interactive": _Lane(), "bulk": _Lane()}
        self._next_rank = 0
        self._num_passed_over = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(
        self,
        owner: OwnerT,
        encoded: EncodedItem,
        lane: Lane,
        *,
        position: int = 0,
        in_order: bool = False,
        tenant: str = DEFAULT_TENANT,
        weight: float = 1.0,
    ) -> QueuedItem[OwnerT]:
        """Queue an item; `position` says how many items of the same request were added before it."""
        due = self._lanes[lane].num_taken(tenant) + position * TURN_SPACING
        item = QueuedItem(owner, encoded, lane, tenant, weight, in_order, due, self._next_rank)
        self._next_rank += 1
        self._lanes[lane].add(item)
        return item

    def drop(self, item: QueuedItem[OwnerT]) -> None:
        """Forget a waiting item: nobody wants it any more."""
        self._lanes[item.lane].remove(item)

    def promote(self, item: QueuedItem[OwnerT]) -> None:
        """Let a waiting item go with the interactive ones, after those of its tenant that are waiting."""
        self.drop(item)
        item.lane, item.due = "interactive", self._lanes["interactive"].num_taken(item.tenant)
        self._lanes[item.lane].add(item)

    def adopt(self, item: QueuedItem[OwnerT], tenant: str, weight: float) -> None:
        """Let a waiting item go on account of another tenant that wants it too, if that one has not had more."""
        lane = self._lanes[item.lane]
        if tenant != item.tenant and lane.had(tenant) <= lane.had(item.tenant):
            self.drop(item)
            item.tenant, item.weight, item.due = tenant, weight, lane.num_taken(tenant)
            lane.add(item)

    def put_first(self, item: QueuedItem[OwnerT]) -> None:
        """Begin the next batch with this waiting item, unless it is the bulk lane's turn."""
        self.drop(item)
        item.lane, item.due = "interactive", -1
        self._lanes[item.lane].add(item)

    def has_items(self, *, with_bulk: bool = True) -> bool:
        return bool(self._lanes["interactive"] or (with_bulk and self._lanes["bulk"]))

    def take_batch(
        self, budget: TokenBudget, *, with_bulk: bool = True, max_bulk_tokens: int | None = None
    ) -> list[QueuedItem[OwnerT]]:
        """Remove and return the next batch, shortest item first. There must be items to take.

        It begins with the first item of the lane whose turn it is: alone, if that is longer than the budget.

        Args:
            with_bulk: Whether bulk items may be in it.
            max_bulk_tokens: Budget of a batch that begins with a bulk item; None: as of the others.
        """
        lane = self._next_lane(with_bulk=with_bulk)
        own = lane.next_queue()
        if max_bulk_tokens is not None and lane is self._lanes["bulk"]:
            budget = replace(budget, max_tokens=min(budget.max_tokens, max_bulk_tokens))
        batch = _Batch(budget, first=own.by_turn[0])
        if batch.first.in_order:
            batch.fill_in_order(own)
        else:
            for name in ("interactive", "bulk") if with_bulk else ("interactive",):
                for queue in self._lanes[name].in_turn(first=own):
                    batch.fill_by_length(queue)
        for item in batch.items:
            self._lanes[item.lane].take(item)
        return sorted(batch.items, key=lambda item: item.num_tokens)

    def _next_lane(self, *, with_bulk: bool) -> _Lane[OwnerT]:
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        if not with_bulk:
            return interactive
        if bulk and (not interactive or self._num_passed_over == MAX_BULK_PASSED_OVER):
            self._num_passed_over = 0
            return bulk
        self._num_passed_over += bool(bulk)
        return interactive


class _Lane(Generic[OwnerT]):
    """Waiting items of one lane, in a queue for each tenant that has some."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue[OwnerT]] = {}
        self._shares = FairShares()

    def __len__(self) -> int:
        return sum(len(queue.by_turn) for queue in self._queues.values())

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, item: QueuedItem[OwnerT]) -> None:
        self._shares.enter(item.tenant, item.weight)
        if item.tenant not in self._queues:
            self._queues[item.tenant] = _Queue()
        self._queues[item.tenant].add(item)

    def remove(self, item: QueuedItem[OwnerT]) -> None:
        queue = self._queues[item.tenant]
        queue.remove(item)
        if not queue.by_turn:
            del self._queues[item.tenant]
        self._shares.leave(item.tenant)

    def take(self, item: QueuedItem[OwnerT]) -> None:
        """Remove an item, because it is computed now."""
        self._shares.charge(item.tenant, item.num_tokens)
        self._queues[item.tenant].num_taken += 1
        self.remove(item)

    def num_taken(self, tenant: str) -> int:
        """Of the items of a tenant, so many have been computed since it last had none waiting."""
        queue = self._queues.get(tenant)
        return queue.num_taken if queue else 0

    def had(self, tenant: str) -> float:
        return self._shares.had(tenant)

    def next_queue(self) -> _Queue[OwnerT]:
        """That of the tenant whose turn it is."""
        return self.in_turn()[0]

    def in_turn(self, *, first: _Queue[OwnerT] | None = None) -> list[_Queue[OwnerT]]:
        """All queues: `first` if it is one of them, then those with an item that was put first, then by turn."""
        if len(self._queues) == 1:
            return list(self._queues.values())

        def rank(tenant: str) -> tuple[bool, bool, float, int]:
            queue = self._queues[tenant]
            # Whoever has just come has had as much as whoever had least: then it is the one that wants less.
            return queue is not first, queue.by_turn[0].due >= 0, self._shares.had(tenant), len(queue.by_turn)

        return [self._queues[tenant] for tenant in sorted(self._queues, key=rank)]


@dataclass(slots=True)
class _Queue(Generic[OwnerT]):
    """One tenant's items of a lane, sorted by their turn, and by length at once; `lengths` are those that there are."""

    by_turn: list[QueuedItem[OwnerT]] = field(default_factory=list)
    by_length: dict[int, list[QueuedItem[OwnerT]]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    num_taken: int = 0

    def add(self, item: QueuedItem[OwnerT]) -> None:
        insort(self.by_turn, item, key=_turn)
        if item.in_order:
            return
        if item.num_tokens not in self.by_length:
            self.by_length[item.num_tokens] = []
            insort(self.lengths, item.num_tokens)
        insort(self.by_length[item.num_tokens], item, key=_turn)

    def remove(self, item: QueuedItem[OwnerT]) -> None:
        del self.by_turn[bisect_left(self.by_turn, item.turn, key=_turn)]
        if item.in_order:
            return
        same_length = self.by_length[item.num_tokens]
        del same_length[bisect_left(same_length, item.turn, key=_turn)]
        if not same_length:
            del self.by_length[item.num_tokens]
            del self.lengths[bisect_left(self.lengths, item.num_tokens)]

    def shorter(self, num_tokens: int) -> Iterator[QueuedItem[OwnerT]]:
        """Yield items below `num_tokens`, longest first, and of one length by their turn."""
        return self._of_lengths(reversed(self.lengths[: bisect_left(self.lengths, num_tokens)]))

    def not_shorter(self, num_tokens: int) -> Iterator[QueuedItem[OwnerT]]:
        """Yield the other items, shortest first, and of one length by their turn."""
        return self._of_lengths(self.lengths[bisect_left(self.lengths, num_tokens) :])

    def _of_lengths(self, lengths: Iterable[int]) -> Iterator[QueuedItem[OwnerT]]:
        return (item for length in lengths for item in self.by_length[length])


class _Batch(Generic[OwnerT]):
    """A batch that is being put together, from its first item on."""

    def __init__(self, budget: TokenBudget, first: QueuedItem[OwnerT]) -> None:
        self.first = first
        self.items = [first]
        self._budget = budget
        self._num_tokens = self._longest = first.num_tokens

    def fill_in_order(self, queue: _Queue[OwnerT]) -> None:
        """Add the queue's next items that are to stay in order, whatever their padding."""
        for item in queue.by_turn:
            if item.in_order and item is not self.first:
                if not self._fits(item, max_padding=1.0):
                    return
                self._add(item)

    def fill_by_length(self, queue: _Queue[OwnerT]) -> None:
        """Add the queue's items whose length is nearest to the first's."""
        below, above = queue.shorter(self.first.num_tokens), queue.not_shorter(self.first.num_tokens)
        shorter, longer = next(below, None), next(above, None)
        while shorter or longer:
            if shorter and (longer is None or self._distance(shorter) < self._distance(longer)):
                shorter = next(below, None) if self._try(shorter) else None
            elif longer:
                longer = next(above, None) if self._try(longer) else None

    def _try(self, item: QueuedItem[OwnerT]) -> bool:
        """Add an item unless it does not fit; then what is farther away from the first will not fit either."""
        if item is self.first:
            return True
        if self._fits(item, max_padding=MAX_PADDING):
            self._add(item)
            return True
        return False

    def _fits(self, item: QueuedItem[OwnerT], *, max_padding: float) -> bool:
        num_tokens = self._num_tokens + item.num_tokens
        if self._budget.is_packed:
            return num_tokens <= self._budget.max_tokens
        num_padded = max(self._longest, item.num_tokens) * (len(self.items) + 1)
        return num_padded <= self._budget.max_tokens and num_tokens >= (1 - max_padding) * num_padded

    def _add(self, item: QueuedItem[OwnerT]) -> None:
        self.items.append(item)
        self._num_tokens += item.num_tokens
        self._longest = max(self._longest, item.num_tokens)

    def _distance(self, item: QueuedItem[OwnerT]) -> int:
        return abs(item.num_tokens - self.first.num_tokens)


def _turn(item: QueuedItem[OwnerT]) -> tuple[int, int]:
    return item.turn
