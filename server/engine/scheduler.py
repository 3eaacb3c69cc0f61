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
        growth_reserve: Cells kept free for each running sequence at admission, so that answers find room to grow.
    """

    max_step_tokens: int = 2048
    max_mixed_step_tokens: int = 512
    max_prefill_chunk: int = 256
    growth_reserve: int = 64


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
        return runs

    def commit(self, runs: list[Run]) -> None:
        """Record that the runs have been computed."""
        for run in runs:
            assert run.sequence.seq_id is not None
            self._kv_cache.grow(run.sequence.seq_id, run.num_tokens)
            run.sequence.num_computed_tokens += run.num_tokens

    def preempt_latest(self) -> bool:
        """Take the cells of the sequence admitted last; it waits at the front. False if fewer than two run."""
        if len(self.running) < 2:
            return False
        victim = self.running[-1]
        self._release(victim)
        victim.status = SequenceStatus.WAITING
        self.waiting.appendleft(victim)
        self._is_full = True
        return True

    def finish(self, sequence: Sequence) -> None:
        """Let go of a sequence in any state, with all it owns."""
        if sequence.status is SequenceStatus.RUNNING:
            self._release(sequence)
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
        while self.waiting and self._kv_cache.has_free_id and not self._is_full:
            sequence = self.waiting[0]
            reserve = self._options.growth_reserve * (len(self.running) + 1)
            if self.running and spoken_for + sequence.num_tokens + reserve > self._kv_cache.num_free_cells:
                return  # alone, any sequence fits: the cache holds at least one full context
            self.waiting.popleft()
            sequence.seq_id = self._kv_cache.take_id()
            sequence.status = SequenceStatus.RUNNING
            self.running.append(sequence)
            spoken_for += sequence.num_tokens

    def _plan(self) -> list[Run]:
        """Deal out this step's tokens among the running; empty when cells are too few for anybody's need."""
        decodes = [Run(sequence, 1) for sequence in self.running if sequence.is_decoding]
        if len(decodes) > self._kv_cache.num_free_cells:
            return []
        prefills = self._plan_prefills(num_decodes=len(decodes))
        return sorted(decodes + prefills, key=_by_seq_id)

    def _plan_prefills(self, *, num_decodes: int) -> list[Run]:
        options = self._options
        if num_decodes:
            budget, chunk = options.max_mixed_step_tokens, options.max_prefill_chunk
        else:
            budget = chunk = options.max_step_tokens
        budget = min(budget, self._kv_cache.num_free_cells) - num_decodes
        prefills = []
        for sequence in self.running:
            num_tokens = min(sequence.num_remaining, chunk, budget)
            if num_tokens > 0 and not sequence.is_decoding:
                prefills.append(Run(sequence, num_tokens))
                budget -= num_tokens
        return prefills

    def _release(self, sequence: Sequence) -> None:
        assert sequence.seq_id is not None
        self.running.remove(sequence)
        self._kv_cache.release_id(sequence.seq_id)
        sequence.seq_id = None
        sequence.num_computed_tokens = 0


def _by_seq_id(run: Run) -> int:
    assert run.sequence.seq_id is not None
    return run.sequence.seq_id
