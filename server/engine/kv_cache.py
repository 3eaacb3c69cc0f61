"""KV cells and sequence ids: who owns how many, who shares them, who has to give them up. Keeps the backend in step."""

from __future__ import annotations

from collections.abc import Sequence

from server.engine.backend import Backend
from server.engine.prefix_cache import Match, PrefixCache

MAX_IDLE_TOKENS = 2500
"""How many tokens others may compute before an idle prefix is dropped. In a unified cache each of them attends to each
idle cell: 0.6 to 1.0 us, where computing a cell again takes 3 ms (SmolLM2-135M on two cores, with and without flash
attention). To drop a prefix when it has cost as much as it can save never costs more than twice the best choice (the
ski-rental rule); and the less often idle prefixes turn out to be wanted, the less they may cost."""

LEAST_IDLE_SHARE = 0.1
"""What is left of that where none has been wanted for long: something, or a better time would go unnoticed."""

MIN_USEFUL_CELLS = 32
"""Idle cells that make a match count as wanted: the beginning of the chat template, which all share, does not."""

_LEARNING = 0.1

MIN_COPIED_SHARE = 256
"""In streams sharing copies a whole stream: not worth it for less than a 256th of its cells. An estimate from memory
bandwidth (about 2 us a cell), to be replaced by a measurement."""


class KVCache:
    """Opens and closes sequences over one backend.

    A closed sequence's cells stay as an idle prefix while nobody needs the room and they do not cost more attention
    than they can save; the one used longest ago goes first. Those of a pinned one stay for ever.
    """

    def __init__(self, backend: Backend, *, max_idle_tokens: int = MAX_IDLE_TOKENS) -> None:
        self._backend = backend
        self._max_idle_tokens = max_idle_tokens
        self._prefixes = PrefixCache()
        self._free_ids = set(range(backend.max_sequences))
        self._idle_since: dict[int, int] = {}  # id -> `_num_computed` at its last use; used longest ago first
        self._pinned_ids: set[int] = set()  # to the prefix cache they are running
        self._num_computed = 0  # tokens computed since start
        self._usefulness = 1.0  # lately, the share of idle prefixes that were wanted before they had cost too much

    @property
    def can_share(self) -> bool:
        return self._backend.can_share

    @property
    def num_available_cells(self) -> int:
        """Cells that running sequences do not hold: free, or idle and evictable. In streams, each finds its own."""
        if self._backend.has_streams:
            return self._backend.num_cells * self._backend.max_sequences
        return self._backend.num_cells - self._prefixes.num_running_cells

    @property
    def num_free_cells(self) -> int:
        """Those of them that nobody holds, not even an idle prefix."""
        if self._backend.has_streams:
            return self.num_available_cells
        return self._backend.num_cells - self._prefixes.num_cells

    @property
    def num_idle_cells(self) -> int:
        return self._prefixes.num_cells - self._prefixes.num_running_cells

    @property
    def has_available_id(self) -> bool:
        return bool(self._free_ids or self._idle_since)

    def match(self, token_ids: Sequence[int], *, tenant: str) -> Match:
        """Find what of a prompt need not be computed. Its last token always is: its logits are wanted."""
        match = self._prefixes.match(token_ids[:-1] if self.can_share else (), tenant=tenant)
        if self._backend.has_streams and match.num_tokens * MIN_COPIED_SHARE < self._backend.num_cells:
            return self._prefixes.match((), tenant=tenant)
        return match

    def open(self, match: Match) -> int:
        """Begin a sequence that shares the matched cells; return its id."""
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
        most = self._max_idle_tokens * max(self._usefulness, LEAST_IDLE_SHARE)
        while self._idle_since:
            seq_id, since = next(iter(self._idle_since.items()))
            if self._num_computed - since <= most:
                return
            self._evict(seq_id)
            self._usefulness -= _LEARNING * self._usefulness

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
        """Drop every idle prefix."""
        while self._idle_since:
            self._evict(next(iter(self._idle_since)))

    def check_integrity(self) -> None:
        """Assert that nothing is owned but idle and pinned prefixes: call when no sequence runs."""
        self._prefixes.check_integrity(running=self._pinned_ids)
        owned = [*self._free_ids, *self._idle_since, *self._pinned_ids]
        assert sorted(owned) == list(range(self._backend.max_sequences)), "ids leaked"

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
        del self._idle_since[seq_id]
        self._backend.trim(seq_id, match.num_tokens)
        self._prefixes.reopen(seq_id, match)
        return seq_id

    def _evict(self, seq_id: int) -> None:
        del self._idle_since[seq_id]
        self._free(seq_id)

    def _free(self, seq_id: int) -> None:
        self._backend.free(seq_id)
        self._prefixes.release(seq_id)
        self._free_ids.add(seq_id)
