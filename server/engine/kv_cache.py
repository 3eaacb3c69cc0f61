"""KV cells and sequence ids: who owns how many, who shares them, who has to give them up. Keeps the backend in step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from server.engine.backend import Backend
from server.engine.parked_prefixes import Parked, ParkedPrefixes
from server.engine.prefix_cache import Match, PrefixCache

logger = logging.getLogger(__name__)

MAX_IDLE_TOKENS = 2500
"""How many tokens others may compute before an idle prefix is dropped. In a unified cache each of them attends to each
idle cell: 0.6 to 1.0 us, where computing a cell again takes 3 ms (SmolLM2-135M on two cores, with and without flash
attention). To drop a prefix when it has cost as much as it can save never costs more than twice the best choice (the
ski-rental rule); and the less often idle prefixes turn out to be wanted, the less they may cost."""

MAX_IDLE_TOKENS_BEFORE_PARKING = 50
"""The same where a copy of the cells stays: there and back costs some 25 us a cell (23 KB), as that many tokens do."""

LEAST_IDLE_SHARE = 0.1
"""What is left of that where none has been wanted for long: something, or a better time would go unnoticed."""

MIN_USEFUL_CELLS = 32
"""Idle cells that make a match count as wanted: the beginning of the chat template, which all share, does not."""

_LEARNING = 0.1

MIN_COPIED_SHARE = 256
"""In streams sharing copies a whole stream: not worth it for less than a 256th of its cells. An estimate from memory
bandwidth (about 2 us a cell), to be replaced by a measurement."""


@dataclass(frozen=True)
class CachedPrefix:
    """What of a prompt need not be computed, and where it is.

    Attributes:
        num_tokens: Its length.
        num_cells: What having it takes of the cells that are available: idle ones, or free ones for what is parked.
    """

    num_tokens: int
    num_cells: int
    _tenant: str
    _match: Match
    _parked: Parked | None = None


class KVCache:
    """Opens and closes sequences over one backend.

    A closed sequence's cells stay as an idle prefix while nobody needs the room and they do not cost more attention
    than they can save; the one used longest ago goes first, and is parked. Those of a pinned one stay for ever.

    Args:
        max_idle_tokens: How many tokens others may compute before an idle prefix goes; None: as the constants say.
        parked: Where prefixes go from here; None: nowhere.
    """

    def __init__(
        self, backend: Backend, *, max_idle_tokens: int | None = None, parked: ParkedPrefixes | None = None
    ) -> None:
        self._backend = backend
        self._parked = parked if backend.can_save else None
        if max_idle_tokens is None:
            max_idle_tokens = MAX_IDLE_TOKENS_BEFORE_PARKING if self._parked else MAX_IDLE_TOKENS
        self._max_idle_tokens = max_idle_tokens
        self._prefixes = PrefixCache()
        self._tenants: dict[int, str] = {}  # of all ids that are not free
        self._free_ids = set(range(backend.max_sequences))
        self._idle_since: dict[int, int] = {}  # id -> `_num_computed` at its last use; used longest ago first
        self._pinned_ids: set[int] = set()  # to the prefix cache they are running
        self._num_computed = 0  # tokens computed since start
        self._usefulness = 1.0  # lately, the share of idle prefixes that were wanted before they had cost too much

    @property
    def can_share(self) -> bool:
        return self._backend.can_share

    @property
    def num_cells(self) -> int:
        """All there are."""
        return self._backend.num_cells * (self._backend.max_sequences if self._backend.has_streams else 1)

    @property
    def num_available_cells(self) -> int:
        """Cells that running sequences do not hold: free, or idle and evictable. In streams, each finds its own."""
        if self._backend.has_streams:
            return self.num_cells
        return self._backend.num_cells - self._prefixes.num_running_cells

    @property
    def num_free_cells(self) -> int:
        """Those of them that nobody holds, not even an idle prefix."""
        if self._backend.has_streams:
            return self.num_available_cells
        return self._backend.num_cells - self._prefixes.num_cells

    @property
    def num_running_cells(self) -> int:
        """Those that running sequences hold; of what they share, one."""
        return self._prefixes.num_running_cells

    @property
    def num_idle_cells(self) -> int:
        return self._prefixes.num_cells - self._prefixes.num_running_cells

    @property
    def has_available_id(self) -> bool:
        return bool(self._free_ids or self._idle_since)

    def match(self, token_ids: Sequence[int], *, tenant: str) -> CachedPrefix:
        """Find what of a prompt need not be computed. Its last token always is: its logits are wanted."""
        wanted = token_ids[:-1] if self.can_share else ()
        match = self._prefixes.match(wanted, tenant=tenant)
        if self._backend.has_streams and match.num_tokens * MIN_COPIED_SHARE < self._backend.num_cells:
            match = self._prefixes.match((), tenant=tenant)
        if self._parked and (found := self._parked.find(wanted, tenant=tenant)):
            num_tokens, parked = found
            if self._is_worth_fetching(num_tokens, match) and len(parked.token_ids) <= self.num_available_cells:
                nothing = self._prefixes.match((), tenant=tenant)
                return CachedPrefix(num_tokens, num_tokens, tenant, nothing, parked)
        return CachedPrefix(match.num_tokens, match.num_idle_cells, tenant, match)

    def _is_worth_fetching(self, num_tokens: int, match: Match) -> bool:
        """Whether so many parked tokens are better than what a prompt can share.

        They take cells of their own. In a unified cache sharing those of running sequences takes none, so that there
        they must bring more than they double.
        """
        assert self._parked is not None
        num_more = num_tokens - match.num_tokens
        num_doubled = 0 if self._backend.has_streams else match.num_tokens - match.num_idle_cells
        return num_more >= self._parked.min_tokens and num_more > num_doubled

    def open(self, prefix: CachedPrefix) -> tuple[int, int]:
        """Begin a sequence with what was found of its prompt; return its id, and how many of its tokens it has.

        These are fewer than were found if the backend has no room for what was parked.
        """
        if prefix._parked is None:
            seq_id, num_tokens = self._open_shared(prefix._match), prefix.num_tokens
        else:
            seq_id, num_tokens = self._open_parked(prefix, prefix._parked)
        self._tenants[seq_id] = prefix._tenant
        return seq_id, num_tokens

    def _open_parked(self, prefix: CachedPrefix, parked: Parked) -> tuple[int, int]:
        assert self._parked is not None
        self._parked.use(parked)
        seq_id = self._choose_id()
        if seq_id in self._idle_since:
            self._evict(seq_id)
        self.make_room(len(parked.token_ids))
        self._free_ids.remove(seq_id)
        self._prefixes.open(seq_id, prefix._match)
        if not self._backend.restore(seq_id, parked.states):
            self._parked.drop(parked)
            return seq_id, 0
        self._backend.trim(seq_id, prefix.num_tokens)
        self._prefixes.extend(seq_id, parked.token_ids[: prefix.num_tokens])
        return seq_id, prefix.num_tokens

    def _open_shared(self, match: Match) -> int:
        """Begin a sequence that shares the matched cells."""
        if match.num_idle_cells >= MIN_USEFUL_CELLS:
            self._usefulness += _LEARNING * (1 - self._usefulness)
        continued = (each for each in self._prefixes.ending_at(match) if each in self._idle_since)
        seq_id = next(continued, None)
        if seq_id is None:
            seq_id = self._choose_id()
        if seq_id in match.holders:
            return self._reopen(seq_id, match)
        if seq_id in self._idle_since:
            self._evict(seq_id)
        if match.num_tokens:
            self._backend.copy(next(iter(match.holders)), seq_id, match.num_tokens)
        self._free_ids.remove(seq_id)
        self._prefixes.open(seq_id, match)
        return seq_id

    def make_room(self, num_cells: int) -> None:
        """Evict idle prefixes until so many cells are free; they must be available."""
        assert num_cells <= self.num_available_cells
        if self._backend.has_streams:
            return
        while self._backend.num_cells - self._prefixes.num_cells < num_cells:
            self._evict(next(iter(self._idle_since)))

    def grow(self, seq_id: int, token_ids: Sequence[int]) -> None:
        """Account for cells that a decode has given to the sequence."""
        self._prefixes.extend(seq_id, token_ids)
        self._num_computed += len(token_ids)

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Drop what a decode has computed behind the sequence's first `num_tokens`, before `grow` hears of it."""
        self._backend.trim(seq_id, num_tokens)

    def drop_costly(self) -> None:
        """Evict the idle prefixes that have cost as much attention as they can save; in streams they cost none."""
        if self._backend.has_streams:
            return
        share = max(self._usefulness, LEAST_IDLE_SHARE)
        for seq_id, since in list(self._idle_since.items()):
            num_idle = self._num_computed - since
            if num_idle <= share * self._max_idle_tokens:
                return  # and so are those that were used later
            if num_idle > share * self._max_idle_tokens_of(seq_id):
                self._evict(seq_id)
                self._usefulness -= _LEARNING * self._usefulness

    def _max_idle_tokens_of(self, seq_id: int) -> int:
        """What is too large to be parked is computed again when it has gone, so it may stay as without parking."""
        if self._parked is None or self._parked.may_hold(self._prefixes.num_tokens_of(seq_id)):
            return self._max_idle_tokens
        return max(self._max_idle_tokens, MAX_IDLE_TOKENS)

    def num_cells_of(self, seq_id: int) -> int:
        """Cells that closing this running sequence would make available: those that no other one holds."""
        return self._prefixes.num_own_cells(seq_id)

    def close(self, seq_id: int, *, keep: bool) -> None:
        """End a sequence; keep its cells as an idle prefix if that can help anybody."""
        self._prefixes.make_idle(seq_id)
        if keep and self._backend.can_share and not self._prefixes.adds_nothing(seq_id):
            self._idle_since[seq_id] = self._num_computed
        else:
            self._free(seq_id)

    def pin(self, seq_id: int) -> None:
        """End a sequence, and keep its cells for ever."""
        self._pinned_ids.add(seq_id)

    def evict_all(self) -> None:
        """Drop every idle prefix, and park none: they may not be what they should be."""
        while self._idle_since:
            seq_id, _ = self._idle_since.popitem()
            self._free(seq_id)

    def check_integrity(self) -> None:
        """Assert that nothing is owned but idle and pinned prefixes: call when no sequence runs."""
        self._prefixes.check_integrity(running=self._pinned_ids)
        owned = [*self._free_ids, *self._idle_since, *self._pinned_ids]
        assert sorted(owned) == list(range(self._backend.max_sequences)), "ids leaked"
        if self._parked:
            self._parked.check_integrity()

    def _choose_id(self) -> int:
        """A free id, or the idle one used longest ago; the one that leaves fewest holes between running ids.

        In streams, and for recurrent models, llama.cpp computes consecutive ids in one pass: each hole costs another.
        """
        available = sorted(self._free_ids) + list(self._idle_since)
        if not self._backend.has_streams and self._backend.can_share:
            return available[0]
        running = set(range(self._backend.max_sequences)).difference(available, self._pinned_ids)
        # With no neighbour it begins a run of its own, beside one it makes that longer, between two it joins them.
        return min(available, key=lambda seq_id: -len(running & {seq_id - 1, seq_id + 1}))

    def _reopen(self, seq_id: int, match: Match) -> int:
        """Continue an idle prefix under its own id, without what lies behind the match."""
        if seq_id not in self._prefixes.ending_at(match):
            self._park(seq_id)
        del self._idle_since[seq_id]
        self._backend.trim(seq_id, match.num_tokens)
        self._prefixes.reopen(seq_id, match)
        return seq_id

    def _evict(self, seq_id: int) -> None:
        self._park(seq_id)
        del self._idle_since[seq_id]
        self._free(seq_id)

    def _park(self, seq_id: int) -> None:
        """Copy out what an idle prefix holds, before it goes, if nobody else has it."""
        if self._parked is None or self._prefixes.adds_nothing(seq_id):
            return
        token_ids, tenant = self._prefixes.token_ids_of(seq_id), self._tenants[seq_id]
        if not self._parked.wants(token_ids, tenant=tenant):
            return
        try:
            states = self._backend.save(seq_id)
        except MemoryError:
            logger.warning("no memory to park a prefix", extra={"tokens": len(token_ids)})
            return
        self._parked.put(Parked(token_ids, states), tenant=tenant)

    def _free(self, seq_id: int) -> None:
        self._backend.free(seq_id)
        self._prefixes.release(seq_id)
        del self._tenants[seq_id]
        self._free_ids.add(seq_id)
