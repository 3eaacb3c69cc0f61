"""What each tenant has of a model that several want, and who has to give way. Policy only: nothing is moved here.

Among tenants it is tokens that count: whoever has had fewest, with those that its running sequences are expected to
take, comes first. Within a tenant `order.py` decides, and while there is only one tenant it alone.

A tenant that came when all places, or all cells, were taken would have to wait for others' answers to end. So it is due
its share of both at once, and those who have more than theirs give some back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from server.engine.answer_lengths import AnswerLengths
from server.engine.kv_cache import KVCache
from server.engine.sequence import Sequence
from server.fair_shares import FairShares

LEAST_RUNNING = 1
"""Sequences that a tenant keeps whatever its share is: of those who run, nobody is stopped altogether."""

ROUNDING = 1e-9
"""Of a part: what adding fractions leaves behind must not make two tenants at their shares displace each other."""


@dataclass
class _Holding:
    """Part of the places and of the cells that a tenant has, 0 to 1 each; the larger one counts.

    Cells are those that its sequences have, and those that they are expected to take yet.
    """

    num_running: int = 0
    places: float = 0.0
    cells: float = 0.0

    @property
    def part(self) -> float:
        return max(self.places, self.cells)


class TenantShares:
    """Keeps account of the tenants of all sequences that wait or run.

    Args:
        running: The scheduler's own list, which it changes.
    """

    def __init__(
        self, running: list[Sequence], kv_cache: KVCache, answer_lengths: AnswerLengths, *, max_running: int
    ) -> None:
        self._running = running
        self._kv_cache = kv_cache
        self._answer_lengths = answer_lengths
        self._max_running = max_running
        self._shares = FairShares()

    @property
    def is_contested(self) -> bool:
        """Whether sequences of more than one tenant are here."""
        return self._shares.is_contested

    def enter(self, sequence: Sequence) -> None:
        self._shares.enter(sequence.tenant, sequence.weight)

    def leave(self, sequence: Sequence) -> None:
        self._shares.leave(sequence.tenant)

    def charge(self, sequence: Sequence, num_tokens: int) -> None:
        """So many of its tokens have been computed."""
        self._shares.charge(sequence.tenant, num_tokens)

    # ---- who comes first

    def standing(self, tenant: str) -> float:
        """What a tenant has had, and will have had by the time that all it runs has ended; the lowest comes first."""
        its = (each for each in self._running if each.tenant == tenant)
        outstanding = sum(map(self._num_expected, its))
        return self._shares.had(tenant) + outstanding / self._shares.weight(tenant)

    # ---- who gives way

    def is_due(self, newcomer: Sequence) -> bool:
        """Whether its tenant would have no more than its share with this sequence running too, or has nothing yet."""
        holding = self._holdings().get(newcomer.tenant)
        if holding is None:
            return True
        places = holding.places + 1 / self._max_running
        cells = holding.cells + self._num_expected(newcomer) / self._kv_cache.num_cells
        return max(places, cells) <= self._fair_part(newcomer.tenant) + ROUNDING

    def victims_for(self, newcomer: Sequence, *, num_cells: int) -> list[Sequence]:
        """Return who has to give way so that a sequence which is due finds a place and so many cells more.

        They are of tenants that have more than their shares, and keep these; empty if that would not suffice.
        """
        holdings, num_freed = self._holdings(), 0
        victims: list[Sequence] = []
        for victim in self._by_loss(newcomer):
            holding = holdings[victim.tenant]
            if holding.num_running <= LEAST_RUNNING or holding.part <= self._fair_part(victim.tenant) + ROUNDING:
                continue
            num_its_cells = self._num_own_cells(victim) + self._num_expected(victim)
            holding.num_running -= 1
            holding.places -= 1 / self._max_running
            holding.cells -= num_its_cells / self._kv_cache.num_cells
            victims.append(victim)
            num_freed += num_its_cells
            if num_freed >= num_cells:
                return victims
        return []

    def excess(self, tenant: str) -> float:
        """What a tenant that runs something has, by its share: above 1 it has more than that."""
        return self._holdings()[tenant].part / self._fair_part(tenant)

    def _by_loss(self, newcomer: Sequence) -> Iterator[Sequence]:
        """Who might give way to it, whoever loses least first. The oldest of each tenant stays: it gets on."""
        oldest: dict[str, Sequence] = {}
        for each in sorted(self._running, key=lambda each: (each.priority, each.arrived_at), reverse=True):
            oldest[each.tenant] = each
        others = [
            each
            for each in self._running
            if each.tenant != newcomer.tenant and each.priority >= newcomer.priority and each is not oldest[each.tenant]
        ]
        return iter(sorted(others, key=lambda each: (-each.priority, self._num_own_cells(each))))

    def _holdings(self) -> dict[str, _Holding]:
        holdings: dict[str, _Holding] = {}
        for each in self._running:
            holding = holdings.setdefault(each.tenant, _Holding())
            holding.num_running += 1
            holding.places += 1 / self._max_running
            num_cells = self._num_own_cells(each) + self._num_expected(each)
            holding.cells += num_cells / self._kv_cache.num_cells
        return holdings

    def _fair_part(self, tenant: str) -> float:
        return self._shares.weight(tenant) / self._shares.total_weight

    def _num_expected(self, sequence: Sequence) -> int:
        """Tokens, and so cells, that it is expected to take yet."""
        return sequence.num_remaining + self._answer_lengths.expected_growth(sequence)

    def _num_own_cells(self, sequence: Sequence) -> int:
        assert sequence.seq_id is not None
        return self._kv_cache.num_cells_of(sequence.seq_id)
