"""Single flight: what several requests want is computed once. Knows no threads, no model and no cache.

A flight is an item on its way to its row, with all who wait for that row: it begins when somebody wants an item that
nobody else is waiting for, others join it until it lands, and it is dropped when the last of them leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from server.encoders.encoder import EncodedItem, TokenBudget
from server.encoders.item_queue import ItemQueue, QueuedItem
from server.types import DEFAULT_TENANT, Lane

OwnerT = TypeVar("OwnerT")


@dataclass(slots=True, eq=False)
class Flight(Generic[OwnerT]):
    """An item on its way.

    Attributes:
        key: Its digest.
        waiting: Who waits for the row, each with the positions where it wants it.
        queued: Its place in the queue; None once it has been taken into a batch.
        is_bulk: Whether only bulk requests wanted it when it was taken.
    """

    key: bytes
    encoded: EncodedItem
    waiting: dict[OwnerT, list[int]] = field(default_factory=dict)
    queued: QueuedItem[Flight[OwnerT]] | None = None
    is_bulk: bool = False


class Flights(Generic[OwnerT]):
    """All flights, queued and running. Not thread-safe: the batcher's lock guards them."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Flight[OwnerT]] = {}
        self._by_owner: dict[OwnerT, dict[Flight[OwnerT], None]] = {}
        self._queue: ItemQueue[Flight[OwnerT]] = ItemQueue()

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    def join(
        self,
        owner: OwnerT,
        position: int,
        key: bytes,
        encoded: EncodedItem,
        lane: Lane,
        *,
        in_order: bool = False,
        tenant: str = DEFAULT_TENANT,
        weight: float = 1.0,
    ) -> bool:
        """Let `owner` wait for an item's row; true if it joins a flight and false if one begins."""
        flight = self._by_key.get(key)
        has_joined = flight is not None
        if flight is None:
            flight = self._by_key[key] = Flight(key, encoded)
            flight.queued = self._queue.add(
                flight, encoded, lane, position=position, in_order=in_order, tenant=tenant, weight=weight
            )
        elif flight.queued:
            if flight.queued.lane == "bulk" and lane == "interactive":
                self._queue.promote(flight.queued)
            if flight.queued.lane == lane:
                self._queue.adopt(flight.queued, tenant, weight)
        flight.waiting.setdefault(owner, []).append(position)
        self._by_owner.setdefault(owner, {})[flight] = None
        return has_joined

    def leave(self, owner: OwnerT) -> None:
        """Forget an owner, and the flights that nobody else waits for."""
        for flight in self._by_owner.pop(owner, ()):
            del flight.waiting[owner]
            if not flight.waiting:
                del self._by_key[flight.key]
                if flight.queued:
                    self._queue.drop(flight.queued)

    def put_first(self, owner: OwnerT) -> None:
        """Let the next batch begin with the first item that `owner` waits for, unless one is being computed."""
        flights = self._by_owner.get(owner, {})
        queued = [flight.queued for flight in flights if flight.queued]
        if queued and len(queued) == len(flights):
            self._queue.put_first(queued[0])

    def has_queued(self, *, with_bulk: bool = True) -> bool:
        return self._queue.has_items(with_bulk=with_bulk)

    def take_batch(
        self, budget: TokenBudget, *, with_bulk: bool = True, max_bulk_tokens: int | None = None
    ) -> list[Flight[OwnerT]]:
        """Take the next batch out of the queue; `ItemQueue.take_batch` tells how."""
        items = self._queue.take_batch(budget, with_bulk=with_bulk, max_bulk_tokens=max_bulk_tokens)
        for item in items:
            item.owner.queued = None
            item.owner.is_bulk = item.lane == "bulk"
        return [item.owner for item in items]

    def land(self, flight: Flight[OwnerT]) -> dict[OwnerT, list[int]]:
        """End a flight whose row is there; return who waited for it, and for which positions."""
        waiting, flight.waiting = flight.waiting, {}
        if waiting:
            del self._by_key[flight.key]
        for owner in waiting:
            del self._by_owner[owner][flight]
        return waiting

    def check_integrity(self) -> None:
        """Assert that nothing is left over, when nobody waits any more."""
        assert not self._by_key, f"{len(self._by_key)} flights left"
        assert len(self._queue) == 0, f"{len(self._queue)} items left in the queue"
        assert not any(self._by_owner.values()), f"{len(self._by_owner)} owners left"
