"""Which way of running a chat model is the fastest here: the search over trials, and what it found.

Knows no llama.cpp: `probe.py` runs the trials. Docs: docs/decisions/0007-measured-runtime-choices.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from server.config.schema import KvType

logger = logging.getLogger(__name__)

MIN_GAIN = 1.05
"""A challenger must be so much faster: less is noise, and changes the choice from one machine to the next."""

MIN_KV_TYPE_GAIN = 1.10
"""The same for a KV cache of 8 bits, which changes answers a little."""

MIN_THREADS_GAIN = 1.20
"""The same for fewer threads: they win by a little while others use the cores, and lose a lot when those have gone."""

MAX_SEARCHES = 3
"""So many loads search for what time has run out over: one that fell on a busy minute says little."""

PROMPT_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 256, 32, 128
"""The reference load. Half of the requests have a long prompt of their own; the other half share all of it but a
question. All answers are equally long."""


Layout = Literal["unified", "streams"]


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run a model. Names are those of models.yaml."""

    kv: Layout
    flash_attention: bool
    kv_type: KvType
    threads: int
    ubatch_tokens: int

    def describe(self) -> dict[str, str]:
        """The settings as people write them."""
        flash = "on" if self.flash_attention else "off"
        return {name: str(value) for name, value in msgspec.structs.asdict(self).items()} | {"flash_attention": flash}


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a way of running the model achieved.

    Attributes:
        prefill_tokens_per_s: Of one prompt of `num_prompt_tokens`, alone.
        unrelated_step_ms: A step in which `num_sequences` get a token each and have nothing in common.
        shared_step_ms: The same where they have nearly everything in common.
        failure: Why there are no figures; empty where there are.
    """

    settings: RuntimeSettings
    num_sequences: int = 1
    num_prompt_tokens: int = 1
    prefill_tokens_per_s: float = 0.0
    unrelated_step_ms: float = 0.0
    shared_step_ms: float = 0.0
    failure: str = ""

    @property
    def tokens_per_s(self) -> float:
        """Answer tokens in a second under the reference load; 0 for a failed trial. More is better."""
        if self.failure:
            return 0.0
        prefill_s = self.num_sequences * (PROMPT_TOKENS + QUESTION_TOKENS) / self.prefill_tokens_per_s
        decode_s = ANSWER_TOKENS * (self.unrelated_step_ms + self.shared_step_ms) / 1000
        return 2 * self.num_sequences * ANSWER_TOKENS / (prefill_s + decode_s)

    def best_with(self, other: Trial) -> Trial:
        """The better figures of two trials of one thing: a busy machine only ever makes them worse."""
        if self.failure or other.failure:
            return other if self.failure else self
        return msgspec.structs.replace(
            self,
            prefill_tokens_per_s=max(self.prefill_tokens_per_s, other.prefill_tokens_per_s),
            unrelated_step_ms=min(self.unrelated_step_ms, other.unrelated_step_ms),
            shared_step_ms=min(self.shared_step_ms, other.shared_step_ms),
        )


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found: the best settings, all trials in the order of their first run, and how long it took.

    `is_complete` is false where time ran out before everything was tried; `num_searches` counts those that were made.
    """

    best: RuntimeSettings
    trials: tuple[Trial, ...]
    took_s: float
    is_complete: bool
    measured_at: str
    num_searches: int = 1

    @property
    def is_settled(self) -> bool:
        """Whether another search is not worth the time that a load takes longer for it."""
        return self.is_complete or self.num_searches >= MAX_SEARCHES

    def after(self, earlier: Tuning) -> Tuning:
        """What is known after this search and an earlier one: the finding of whichever has tried more."""
        is_better = self.is_complete or (not earlier.is_complete and len(self.trials) >= len(earlier.trials))
        return msgspec.structs.replace(self if is_better else earlier, num_searches=earlier.num_searches + 1)

    def has_compared(self, name: str) -> bool:
        """Whether more than one value of the setting of that name was tried."""
        return len({getattr(trial.settings, name) for trial in self.trials}) > 1


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What may be chosen: for each setting the values to compare, the rule's own among them. One value: no choice."""

    rule: RuntimeSettings
    kv: tuple[Layout, ...]
    flash_attention: tuple[bool, ...]
    kv_type: tuple[KvType, ...]
    threads: tuple[int, ...]
    ubatch_tokens: tuple[int, ...]

    def is_open(self, name: str) -> bool:
        """Whether there is more than one value of the setting of that name."""
        return len(getattr(self, name)) > 1

    @property
    def is_one(self) -> bool:
        """Whether everything is decided already."""
        return not any(self.is_open(name) for name in RuntimeSettings.__struct_fields__)

    def allow(self, settings: RuntimeSettings) -> bool:
        """Whether `settings` are among them."""
        return all(value in getattr(self, name) for name, value in msgspec.structs.asdict(settings).items())


class OutOfTime(Exception):
    """A trial was cut off; it says nothing."""


Measure = Callable[[RuntimeSettings], Trial]


class Search:
    """Compares one way of running a model with another, setting by setting.

    The layout and flash attention are tried in all combinations, because each changes what the other costs; the rest
    one after the other on the best so far. Whoever beats the incumbent has to do so again: noise only makes figures
    worse, so the incumbent gets a second trial before it loses its place.
    """

    def __init__(self, choices: Choices, measure: Measure, *, budget_s: float, prompt_tokens: int) -> None:
        """Take what may be chosen and how to try it.

        Args:
            measure: Runs one trial; raises `OutOfTime` to end the search.
            budget_s: No trial begins that is likely to end later than this.
            prompt_tokens: Longest prompt of a trial: micro-batches that are longer cannot be told apart.
        """
        self._choices = choices
        self._measure = measure
        self._budget_s = budget_s
        self._prompt_tokens = prompt_tokens
        self._started = time.monotonic()
        self._longest_s = 0.0
        self._trials: dict[RuntimeSettings, Trial] = {}

    def run(self) -> Tuning:
        best, is_complete = self._choices.rule, True
        try:
            self._try(best)
            for find in (self._contexts, self._threads, self._ubatches, self._kv_types):
                for challenger in find(best):
                    best = self._winner(best, challenger)
        except OutOfTime:
            is_complete = False
        return Tuning(
            best=best,
            trials=tuple(self._trials.values()),
            took_s=round(time.monotonic() - self._started, 1),
            is_complete=is_complete,
            measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    # ---- who is tried

    def _contexts(self, best: RuntimeSettings) -> Iterator[RuntimeSettings]:
        for kv in self._choices.kv:
            for flash_attention in self._choices.flash_attention:
                yield msgspec.structs.replace(best, kv=kv, flash_attention=flash_attention)

    def _threads(self, best: RuntimeSettings) -> Iterator[RuntimeSettings]:
        for threads in self._choices.threads:
            yield msgspec.structs.replace(best, threads=threads)

    def _ubatches(self, best: RuntimeSettings) -> Iterator[RuntimeSettings]:
        seen = {min(best.ubatch_tokens, self._prompt_tokens)}
        for ubatch_tokens in self._choices.ubatch_tokens:
            if min(ubatch_tokens, self._prompt_tokens) not in seen:
                seen.add(min(ubatch_tokens, self._prompt_tokens))
                yield msgspec.structs.replace(best, ubatch_tokens=ubatch_tokens)

    def _kv_types(self, best: RuntimeSettings) -> Iterator[RuntimeSettings]:
        if best.flash_attention:  # llama.cpp has no other way
            for kv_type in self._choices.kv_type:
                yield msgspec.structs.replace(best, kv_type=kv_type)

    # ---- who wins

    def _winner(self, incumbent: RuntimeSettings, challenger: RuntimeSettings) -> RuntimeSettings:
        if challenger in self._trials:
            return incumbent  # it is the incumbent, or has lost before
        self._try(challenger)
        if self._is_faster(challenger, incumbent):
            if not self._trials[incumbent].failure:
                self._try(incumbent)
            if self._is_faster(challenger, incumbent):
                return challenger
        return incumbent

    def _is_faster(self, challenger: RuntimeSettings, incumbent: RuntimeSettings) -> bool:
        gain = _min_gain(challenger, incumbent)
        return self._trials[challenger].tokens_per_s > gain * self._trials[incumbent].tokens_per_s

    def _try(self, settings: RuntimeSettings) -> None:
        """Run a trial, where it was run before a second one, and keep the better figures."""
        before = self._trials.get(settings)
        if self._trials and self._elapsed_s() + self._longest_s > self._budget_s and before is None:
            raise OutOfTime
        started = self._elapsed_s()
        trial = self._measure(settings)
        self._longest_s = max(self._longest_s, self._elapsed_s() - started)
        self._trials[settings] = before.best_with(trial) if before else trial
        logger.debug("trial", extra={"settings": msgspec.structs.asdict(settings), "failure": trial.failure})

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started


def _min_gain(challenger: RuntimeSettings, incumbent: RuntimeSettings) -> float:
    if challenger.threads != incumbent.threads:
        return MIN_THREADS_GAIN
    return MIN_GAIN if challenger.kv_type == incumbent.kv_type else MIN_KV_TYPE_GAIN
