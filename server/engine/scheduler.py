"""Who runs this step, with how many tokens. Knows no model and no text, and of time what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from server.engine.answer_lengths import AnswerLengths
from server.engine.drafter import Drafter
from server.engine.kv_cache import CachedPrefix, KVCache
from server.engine.order import urgency
from server.engine.sequence import Sequence, SequenceStatus
from server.engine.step_cost import StepCost
from server.engine.tenant_shares import TenantShares
from server.engine.turns import Turns
from server.types import TokenIds


@dataclass(frozen=True)
class SchedulerOptions:
    """How a step's tokens are dealt out.

    Attributes:
        max_step_tokens: Most tokens of a step.
        max_step_s: A step takes no more prompt tokens than are expected to be computed in this time: it bounds the gap
            between two tokens of a stream, and how long a newcomer waits for the step that runs.
        min_prefill_tokens: Prompt tokens that a step may take however slow the machine is.
        first_prefill_tokens: The same while it is not known how slow the machine is.
        max_running: Most sequences that run at the same time; at most as many as the backend has ids, or a step tokens.
        min_tokens_to_wait_for: A prompt waits for another one that is just computing so many of its tokens.
        drafts: Whether to draft where it pays.
    """

    max_step_tokens: int = 2048
    max_step_s: float = 0.4
    min_prefill_tokens: int = 64
    first_prefill_tokens: int = 256
    max_running: int = 16
    min_tokens_to_wait_for: int = 32
    drafts: bool = True


MAX_LOOKED_AT = 32
"""Waiting sequences that a step considers, the most urgent: looking up a prompt takes time."""

CONTESTED_STEP_SHARE = 0.25
"""Of `max_step_s` and `min_prefill_tokens`, in steps that several tenants share: a newcomer waits for the step that
runs, in which it has no part."""

LEAST_SLICE = 64
"""Tokens of a prompt that a step computes at least, unless it has no more or the step has not: llama.cpp's fused
attention works in tiles of so many, and slices of 40 tokens cost 1.4 times as much a token as those of 80."""

MIN_WAITED_SHARE = 4
"""A prompt waits for what is at least a quarter of what it still needs: for less it would rather begin."""


@dataclass(slots=True)
class Run:
    """The next `num_tokens` tokens of one sequence, and a draft of those after its last.

    Attributes:
        num_outputs: Rows of logits it wants: one for the next token if it reaches the last, one for each drafted token.
    """

    sequence: Sequence
    num_tokens: int
    draft: TokenIds
    num_outputs: int


class Scheduler:
    """Owns the waiting and the running sequences, and counts what becomes of them, as `EngineCounts` has it.

    Promises: a step never takes more cells than are free; when cells run out, somebody gives up its cells and is
    computed again later, so nobody fails because of a neighbour; whenever a sequence runs, one advances; a tenant
    that has less than its share of the places does not wait for answers of one that has more to end.
    """

    def __init__(self, kv_cache: KVCache, options: SchedulerOptions, cost: StepCost) -> None:
        self._kv_cache = kv_cache
        self._options = options
        self._cost = cost
        self._drafter = Drafter(cost)
        self._answer_lengths = AnswerLengths()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_prefix_tokens = 0
        self.num_prefix_hits = 0
        self.num_preemptions = 0
        self.num_drafted = 0
        self.num_accepted = 0
        self._tenants = TenantShares(self.running, kv_cache, self._answer_lengths, max_running=options.max_running)
        # Cells ran out: until somebody has finished, only who fits in the worst case is admitted; else it would thrash.
        self._is_full = False

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        self._tenants.enter(sequence)

    def schedule(self, now: float) -> list[Run]:
        """Decide the next step: one token for each decoding sequence, the rest of the budget for prompts.

        Returns:
            The runs, in order of sequence id; empty only when there is nothing to do.
        """
        self._admit(now)
        runs = self._plan(now)
        while not runs and self.preempt():
            runs = self._plan(now)
        self._kv_cache.make_room(sum(run.num_tokens + len(run.draft) for run in runs))
        return runs

    def commit(self, run: Run, *, num_accepted: int) -> None:
        """Record that a run has been computed, and that so many tokens of its draft stay."""
        sequence, start = run.sequence, run.sequence.num_computed_tokens
        assert sequence.seq_id is not None
        end = start + run.num_tokens + num_accepted
        if num_accepted < len(run.draft):
            self._kv_cache.trim(sequence.seq_id, end)
        self._kv_cache.grow(sequence.seq_id, sequence.token_ids[start:end])
        self._tenants.charge(sequence, end - start)
        sequence.num_computed_tokens = end
        sequence.note_draft(num_drafted=len(run.draft), num_accepted=num_accepted)
        self.num_drafted += len(run.draft)
        self.num_accepted += num_accepted

    def drop_costly(self) -> None:
        """Let go of idle prefixes that cost more than they save: once after each step."""
        self._kv_cache.drop_costly()

    def preempt(self) -> bool:
        """Take the cells of the cheapest victim; it waits to be computed again. False if fewer than two run.

        That is one of the lowest priority, of the tenant that has most of its share, and of these the one that loses
        least; never the most urgent of all.
        """
        if len(self.running) < 2:
            return False
        spared = min(self.running, key=lambda each: (each.priority, each.arrived_at))
        candidates = [each for each in self.running if each is not spared]
        excess = {each.tenant: self._tenants.excess(each.tenant) for each in candidates}
        self._put_back(
            max(candidates, key=lambda each: (each.priority, excess[each.tenant], -self._num_own_cells(each)))
        )
        self._is_full = True
        return True

    def make_do_with_less(self) -> bool:
        """Give cells back after the backend had fewer than it promised: idle prefixes first, then somebody's."""
        if self._kv_cache.num_idle_cells:
            self._kv_cache.evict_all()
            return True
        return self.preempt()

    def finish(self, sequence: Sequence, *, keep: bool = True, is_answered: bool = False) -> None:
        """Let go of a sequence in any state; its cells stay as an idle prefix unless they are not to be trusted."""
        if is_answered and not sequence.pins_prefix:
            self._answer_lengths.observe(sequence)
        if sequence.status is SequenceStatus.RUNNING:
            self._release(sequence, keep=keep)
            if not keep:  # and neither are those that it shared
                self._kv_cache.evict_all()
            self._is_full = False
        elif sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
        self._drafter.forget(sequence)
        self._tenants.leave(sequence)
        sequence.status = SequenceStatus.FINISHED

    @property
    def num_cells(self) -> int:
        return self._kv_cache.num_cells

    @property
    def num_used_cells(self) -> int:
        return self._kv_cache.num_running_cells

    @property
    def s_per_answer_token(self) -> float:
        """What a generated token costs, while as many sequences run as may."""
        return self._cost.of_decode_step(self._options.max_running) / self._options.max_running

    def check_integrity(self) -> None:
        """Assert that nothing is left behind: call when idle."""
        assert not self.running
        assert not self.waiting
        self._kv_cache.check_integrity()

    # ---- admission

    def _admit(self, now: float) -> None:
        """Let waiting sequences run, tenants in turn, of each the most urgent first, while there is room for them."""
        if not self.waiting or not (self._has_place or self._tenants.is_contested):
            return
        turns = Turns(self._in_order(self.waiting, now), self._tenants.standing)
        for sequence in islice(turns, MAX_LOOKED_AT):
            if not self._admit_one(sequence, now):
                turns.end(sequence.tenant)

    def _admit_one(self, sequence: Sequence, now: float) -> bool:
        """Let it run if there is room, or others have to make it. False if none of its tenant's may pass it by.

        Room is what its tokens, its growth and everybody's growth fit in.
        """
        if not self._has_place and not (self._tenants.is_contested and self._tenants.is_due(sequence)):
            return False
        prefix = self._kv_cache.match(sequence.token_ids, tenant=sequence.tenant)
        if self._is_being_computed(sequence, prefix.num_tokens, now):
            return True
        promised = sum(map(self._expected_cells, self.running))
        needed = promised + self._expected_cells(sequence) - prefix.num_tokens + prefix.num_cells
        # Alone, any sequence fits: the cache holds at least one full context.
        num_missing = needed - self._kv_cache.num_available_cells if self.running else 0
        if self._has_place and num_missing <= 0:
            self._start(sequence, prefix)
            sequence.note_start(now)
            return True
        if self._make_way(sequence, num_missing):
            return self._admit_one(sequence, now)
        # Whoever was preempted waits for a finish anyway; smaller ones need not.
        return self._has_place and self._is_full

    def _make_way(self, newcomer: Sequence, num_missing: int) -> bool:
        """Put back sequences of tenants that have more than their shares, if the newcomer's has less than its."""
        if not self._tenants.is_contested or not self._tenants.is_due(newcomer):
            return False
        victims = self._tenants.victims_for(newcomer, num_cells=num_missing)
        for victim in victims:
            self._put_back(victim)
        return bool(victims)

    @property
    def _has_place(self) -> bool:
        return len(self.running) < self._options.max_running and self._kv_cache.has_available_id

    def _start(self, sequence: Sequence, prefix: CachedPrefix) -> None:
        sequence.seq_id, sequence.num_computed_tokens = self._kv_cache.open(prefix)
        if sequence.num_cached_tokens is None:
            sequence.num_cached_tokens = sequence.num_computed_tokens
            self.num_prefix_tokens += sequence.num_prompt_tokens
            self.num_prefix_hits += sequence.num_cached_tokens
        sequence.status = SequenceStatus.RUNNING
        self.waiting.remove(sequence)
        self.running.append(sequence)

    def _expected_cells(self, sequence: Sequence) -> int:
        """Cells that the sequence is expected to take beside those it has."""
        lengths = self._answer_lengths
        growth = lengths.largest_growth(sequence) if self._is_full else lengths.expected_growth(sequence)
        return sequence.num_remaining + growth

    def _is_being_computed(self, sequence: Sequence, num_cached: int, now: float) -> bool:
        """Whether a running sequence is just computing much more of this prompt than is cached: then better wait."""
        if not self._kv_cache.can_share:
            return False
        least = max(self._options.min_tokens_to_wait_for, (sequence.num_tokens - num_cached) // MIN_WAITED_SHARE)
        return any(
            _shares(other, sequence, num_cached + least) and self._urgency(other, now) <= self._urgency(sequence, now)
            for other in self.running
        )

    # ---- this step's tokens

    def _plan(self, now: float) -> list[Run]:
        """Deal out this step's tokens among the running; empty when cells are too few for anybody's need."""
        chosen = self._whose_step_it_is()
        decoding = [sequence for sequence in chosen if sequence.is_decoding]
        prompts = [sequence for sequence in chosen if not sequence.is_decoding]
        num_available = self._kv_cache.num_available_cells
        if len(decoding) > num_available:
            return []
        if not prompts:
            drafts = self._drafts(decoding)
            runs = [Run(sequence, 1, draft, 1 + len(draft)) for sequence, draft in zip(decoding, drafts, strict=True)]
        else:
            step_share = CONTESTED_STEP_SHARE if self._tenants.is_contested and chosen is self.running else 1.0
            budget = min(self._num_prefill_tokens(len(decoding), step_share), num_available - len(decoding))
            runs = [Run(sequence, 1, [], 1) for sequence in decoding]
            runs += self._plan_prefills(prompts, now, budget=budget)
        return sorted(runs, key=_by_seq_id)

    def _whose_step_it_is(self) -> list[Sequence]:
        """Whose tokens are computed: all, or, while the tenant that stands lowest waits for a first word, only its own.

        Those of others would delay that word, and come next: what the tenant gets is charged, so soon another one
        stands lowest. Nobody who steps back stops others.
        """
        if not self._tenants.is_contested or not self.running:
            return self.running
        tenant = min({sequence.tenant for sequence in self.running}, key=self._tenants.standing)
        own = [sequence for sequence in self.running if sequence.tenant == tenant]
        priorities = [sequence.priority for sequence in own if not sequence.is_decoding]
        is_its = priorities and min(priorities) <= min(sequence.priority for sequence in self.running)
        return own if is_its else self.running

    def _drafts(self, decoding: list[Sequence]) -> list[TokenIds]:
        """Drafts where they pay and there is room for them all."""
        can_trim = self._kv_cache.can_share
        if self._options.drafts and can_trim:
            drafts = self._drafter.draft(decoding)
            room = min(self._kv_cache.num_free_cells, self._options.max_step_tokens)  # no idle prefix goes for a guess
            if len(decoding) + sum(map(len, drafts)) <= room:
                return drafts
        return [[] for _ in decoding]

    def _plan_prefills(self, prompts: list[Sequence], now: float, *, budget: int) -> list[Run]:
        """Deal out the step's prompt tokens, the most urgent first: half of them at most to each, then what is left."""
        in_turn = list(Turns(self._in_order(prompts, now), self._tenants.standing))
        shares = [0] * len(in_turn)
        least = min(LEAST_SLICE, budget)
        for most in (max((budget + 1) // 2, least), budget):
            for index, sequence in enumerate(in_turn):
                share = min(sequence.num_remaining, most, shares[index] + budget)
                if share >= min(least, sequence.num_remaining):
                    budget -= share - shares[index]
                    shares[index] = share
        return [
            Run(sequence, share, [], int(share == sequence.num_remaining))
            for sequence, share in zip(in_turn, shares, strict=True)
            if share
        ]

    def _num_prefill_tokens(self, num_decodes: int, step_share: float) -> int:
        """Prompt tokens that a step can take beside its decodes without taking too long."""
        options = self._options
        room = options.max_step_tokens - num_decodes
        if not self._cost.prefill_s_per_token:
            return min(options.first_prefill_tokens, room)
        left_s = step_share * options.max_step_s - self._cost.of_decode_step(num_decodes)
        in_time = int(left_s / self._cost.prefill_s_per_token)
        return min(max(in_time, int(step_share * options.min_prefill_tokens), 1), room)

    def _in_order(self, sequences: list[Sequence], now: float) -> list[Sequence]:
        return sorted(sequences, key=lambda sequence: self._urgency(sequence, now))

    def _urgency(self, sequence: Sequence, now: float) -> tuple[int, float]:
        return urgency(sequence, now, s_per_token=self._cost.prefill_s_per_token)

    # ---- letting go

    def _put_back(self, victim: Sequence) -> None:
        """Take a running sequence's cells; it waits to be computed again, or to find them as an idle prefix."""
        self._release(victim, keep=True)
        self.num_preemptions += 1
        victim.status = SequenceStatus.WAITING
        self.waiting.append(victim)

    def _num_own_cells(self, sequence: Sequence) -> int:
        assert sequence.seq_id is not None
        return self._kv_cache.num_cells_of(sequence.seq_id)

    def _release(self, sequence: Sequence, *, keep: bool) -> None:
        assert sequence.seq_id is not None
        self.running.remove(sequence)
        if sequence.pins_prefix and keep:
            self._kv_cache.pin(sequence.seq_id)
        else:
            self._kv_cache.close(sequence.seq_id, keep=keep)
        sequence.seq_id = None
        sequence.num_computed_tokens = 0


def _by_seq_id(run: Run) -> int:
    assert run.sequence.seq_id is not None
    return run.sequence.seq_id


def _shares(other: Sequence, sequence: Sequence, length: int) -> bool:
    """Whether a running sequence is still computing and begins with the same `length` tokens as one that might wait.

    Not if that one's last token is among them: its logits are wanted.
    """
    return (
        other.num_remaining > 1
        and other.tenant == sequence.tenant
        and len(other.token_ids) >= length < len(sequence.token_ids)
        and other.token_ids[:length] == sequence.token_ids[:length]
    )
