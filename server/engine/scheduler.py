"""Who runs this step, with how many tokens. Knows no model, no text and no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from server.engine.kv_cache import KVCache
from server.engine.sequence import Sequence, SequenceStatus


@dataclass(frozen=True)
class SchedulerOptions:
    """How a step's tokens are dealt out.

    Attributes:
        max_step_tokens: Most tokens of a step in which nobody decodes.
        max_mixed_step_tokens: Most tokens of a step in which somebody decodes: bounds the gap between its tokens.
        max_prefill_chunk: Most prompt tokens of one sequence in such a step, so that a long prompt shares it.
        max_running: Most sequences that run at the same time; at most as many as the backend has ids.
        min_tokens_to_wait_for: A prompt waits for another one that is just computing so many of its tokens.
        growth_reserve: Cells kept free for each running sequence at admission, so that answers find room to grow.
    """

    max_step_tokens: int = 2048
    max_mixed_step_tokens: int = 512
    max_prefill_chunk: int = 256
    growth_reserve: int = 64
    max_running: int = 16
    min_tokens_to_wait_for: int = 32


@dataclass(frozen=True)
class Run:
    """The next `num_tokens` tokens of one sequence."""

    sequence: Sequence
    num_tokens: int

    @property
    def reaches_end(self) -> bool:
        """Whether the run ends at the sequence's last token, so that the next one can be sampled."""
        return self.num_tokens == self.sequence.num_remaining


class Scheduler:
    """Owns the waiting and the running sequences.

    Promises: a step never takes more cells than are free; when cells run out, the sequence admitted last gives up its
    cells and is computed again later, so nobody fails because of a neighbour; whenever a sequence runs, one advances.
    """

    def __init__(self, kv_cache: KVCache, options: SchedulerOptions) -> None:
        self._kv_cache = kv_cache
        self._options = options
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of admission
        self._is_full = False  # cells ran out; nobody is admitted until somebody has finished, so that nothing thrashes

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> list[Run]:
        """Decide the next step: one token for each decoding sequence, the rest of the budget for prompts.

        Returns:
            The runs, in order of sequence id; empty only when there is nothing to do.
        """
        self._admit()
        runs = self._plan()
        while not runs and self.preempt_latest():
            runs = self._plan()
        self._kv_cache.make_room(sum(run.num_tokens for run in runs))
        return runs

    def commit(self, runs: list[Run]) -> None:
        """Record that the runs have been computed."""
        for run in runs:
            sequence, start = run.sequence, run.sequence.num_computed_tokens
            assert sequence.seq_id is not None
            self._kv_cache.grow(sequence.seq_id, sequence.token_ids[start : start + run.num_tokens])
            sequence.num_computed_tokens += run.num_tokens
        self._kv_cache.drop_costly()

    def preempt_latest(self) -> bool:
        """Take the cells of the sequence admitted last; it waits at the front. False if fewer than two run."""
        if len(self.running) < 2:
            return False
        victim = self.running[-1]
        self._release(victim, keep=True)
        victim.status = SequenceStatus.WAITING
        self.waiting.appendleft(victim)
        self._is_full = True
        return True

    def make_do_with_less(self) -> bool:
        """Give cells back after the backend had fewer than it promised: idle prefixes first, then somebody's."""
        if self._kv_cache.num_idle_cells:
            self._kv_cache.evict_all()
            return True
        return self.preempt_latest()

    def finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Let go of a sequence in any state; its cells stay as an idle prefix unless they are not to be trusted."""
        if sequence.status is SequenceStatus.RUNNING:
            self._release(sequence, keep=keep)
            if not keep:  # and neither are those that it shared
                self._kv_cache.evict_all()
            self._is_full = False
        elif sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED

    def check_integrity(self) -> None:
        """Assert that nothing is left behind: call when idle."""
        assert not self.running
        assert not self.waiting
        self._kv_cache.check_integrity()

    def _admit(self) -> None:
        """Let waiting sequences run, oldest first, while their tokens and some growth of everybody fit."""
        spoken_for = sum(sequence.num_remaining for sequence in self.running)
        for sequence in list(self.waiting):
            if self._is_full or not self._kv_cache.has_available_id or len(self.running) == self._options.max_running:
                return
            match = self._kv_cache.match(sequence.token_ids)
            if self._is_being_computed(sequence, match.num_tokens):
                continue
            need = sequence.num_tokens - match.num_tokens + match.num_idle_cells
            reserve = self._options.growth_reserve * (len(self.running) + 1)
            if self.running and spoken_for + need + reserve > self._kv_cache.num_available_cells:
                return  # alone, any sequence fits: the cache holds at least one full context
            sequence.seq_id = self._kv_cache.open(match)
            self.waiting.remove(sequence)
            sequence.num_computed_tokens = match.num_tokens
            if sequence.num_cached_tokens is None:
                sequence.num_cached_tokens = match.num_tokens
            sequence.status = SequenceStatus.RUNNING
            self.running.append(sequence)
            spoken_for += sequence.num_remaining

    def _is_being_computed(self, sequence: Sequence, num_cached: int) -> bool:
        """Whether a running sequence is just computing much more of this prompt than is cached: then better wait."""
        if not self._kv_cache.can_share:
            return False
        wanted = num_cached + self._options.min_tokens_to_wait_for
        return any(other.num_remaining > 1 and _share(other, sequence, wanted) for other in self.running)

    def _plan(self) -> list[Run]:
        """Deal out this step's tokens among the running; empty when cells are too few for anybody's need."""
        decodes = [Run(sequence, 1) for sequence in self.running if sequence.is_decoding]
        if len(decodes) > self._kv_cache.num_available_cells:
            return []
        prefills = self._plan_prefills(num_decodes=len(decodes))
        return sorted(decodes + prefills, key=_by_seq_id)

    def _plan_prefills(self, *, num_decodes: int) -> list[Run]:
        options = self._options
        if num_decodes:
            budget, chunk = options.max_mixed_step_tokens, options.max_prefill_chunk
        else:
            budget = chunk = options.max_step_tokens
        budget = min(budget, self._kv_cache.num_available_cells) - num_decodes
        prefills = []
        for sequence in self.running:
            num_tokens = min(sequence.num_remaining, chunk, budget)
            if num_tokens > 0 and not sequence.is_decoding:
                prefills.append(Run(sequence, num_tokens))
                budget -= num_tokens
        return prefills

    def _release(self, sequence: Sequence, *, keep: bool) -> None:
        assert sequence.seq_id is not None
        self.running.remove(sequence)
        self._kv_cache.close(sequence.seq_id, keep=keep)
        sequence.seq_id = None
        sequence.num_computed_tokens = 0


def _by_seq_id(run: Run) -> int:
    assert run.sequence.seq_id is not None
    return run.sequence.seq_id


def _share(one: Sequence, other: Sequence, length: int) -> bool:
    """Whether both sequences begin with the same `length` tokens, of which `other` needs none for its logits."""
    is_long_enough = len(one.token_ids) >= length < len(other.token_ids)
    return is_long_enough and one.token_ids[:length] == other.token_ids[:length]
