"""The step loop: schedule, compute, sample. Token ids in, token ids out: `output_processor.py` makes text of them.

Runs on one thread; others talk to it through its inbox.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from functools import partial
from itertools import islice

from server.engine.backend import Backend, BatchFailed, Logits, OutOfCells
from server.engine.batch import Batch
from server.engine.sampler import NO_TOKEN, Sampler
from server.engine.scheduler import Run, Scheduler
from server.engine.sequence import Sequence, SequenceStatus
from server.engine.step_cost import StepCost
from server.engine.token_mask import TokenMasks
from server.errors import DeadlineExceeded, InternalError
from server.types import EngineCounts, Failed, Finished, FinishReason, TokenIds

logger = logging.getLogger(__name__)

TokenOutput = tuple[str, TokenIds, Finished | Failed | None]
"""(request_id, new tokens, ending). Plain, because a step makes one for each sequence."""


class Engine:
    """Continuous batching of sequences over one backend.

    `add`, `abort` and `stop` may be called from any thread; everything else from the engine's own. Every added
    sequence ends exactly once: with `Finished` or `Failed` among the outputs, or silently when aborted.

    Args:
        is_end: Whether a token ends a text.
        on_begin: Told the ids of requests before they are computed for the first time.
        clock: Seconds; what `Sequence.arrived_at` and `deadline_at` are measured by.

    Attributes:
        num_steps: Steps completed.
        step_started_at: `clock()` at the start of the step that runs now; None between steps.
    """

    def __init__(
        self,
        backend: Backend,
        scheduler: Scheduler,
        sampler: Sampler,
        cost: StepCost,
        *,
        is_end: Callable[[int], bool],
        on_begin: Callable[[list[str]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._scheduler = scheduler
        self._sampler = sampler
        self._cost = cost
        self._is_end = is_end
        self._on_begin = on_begin
        self._clock = clock
        self._masks = TokenMasks()
        self._batch = Batch(backend.max_batch_tokens)
        self._sequences: dict[str, Sequence] = {}
        self._outputs: list[TokenOutput] = []  # of the step that runs: survives an exception in it
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._num_tokens = 0  # computed since start
        self.num_steps = 0
        self.step_started_at: float | None = None
        self.is_stopped = False

    def add(self, sequence: Sequence) -> None:
        self._inbox.put(partial(self._on_add, sequence))

    def abort(self, request_id: str) -> None:
        """Drop a request before the next step; one that has ended already is ignored."""
        self._inbox.put(partial(self._on_abort, request_id))

    def stop(self) -> None:
        """Make `wait_for_work` return with `is_stopped` set."""
        self._inbox.put(self._on_stop)

    def wait_for_work(self) -> None:
        """Block until something is to do, or the engine is stopped.

        Raises:
            AssertionError: Something was not given back by the requests that have ended: a bug.
        """
        if not self._sequences:
            if self._inbox.empty():
                self.check_integrity()
            self._inbox.get()()

    def step(self) -> list[TokenOutput]:
        """Compute one batch; return the new tokens of each sequence that got any, and how it ended."""
        self._drain_inbox()
        now = self._clock()
        self._expire(now)
        runs = self._scheduler.schedule(now)
        if begun := [each.request_id for each in self._scheduler.running if each.started_at == now]:
            self._on_begin(begun)
        if runs:
            self._run(runs)
        return self._take_outputs()

    def fail_all(self, reason: str) -> list[TokenOutput]:
        """End every live request with an error: the way out after a bug in `step`. Includes what that step had done."""
        for sequence in list(self._sequences.values()):
            self._fail(sequence, reason)
        return self._take_outputs()

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    def counts(self) -> EngineCounts:
        """What there is to tell; any thread may ask, and gets numbers that belong together but for a step."""
        scheduler = self._scheduler
        return EngineCounts(
            num_steps=self.num_steps,
            num_tokens=self._num_tokens,
            num_cells=scheduler.num_cells,
            num_used_cells=scheduler.num_used_cells,
            num_prefix_tokens=scheduler.num_prefix_tokens,
            num_prefix_hits=scheduler.num_prefix_hits,
            num_preemptions=scheduler.num_preemptions,
            num_drafted=scheduler.num_drafted,
            num_accepted=scheduler.num_accepted,
        )

    @property
    def s_per_token(self) -> float:
        """What a prompt's token costs; 0 before that is known."""
        return self._cost.prefill_s_per_token

    @property
    def s_per_answer_token(self) -> float:
        """What a generated token costs, while as many sequences run as may."""
        return self._scheduler.s_per_answer_token

    def check_integrity(self) -> None:
        """Assert that everything has been given back: call when no request is live."""
        assert not self._sequences
        self._scheduler.check_integrity()

    # ---- the parts of a step

    def _drain_inbox(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()

    def _expire(self, now: float) -> None:
        """Fail whatever is past its deadline, wherever it stands."""
        for sequence in [each for each in self._sequences.values() if each.deadline_at <= now]:
            self._fail_late(sequence)

    def _run(self, runs: list[Run]) -> None:
        """Compute a batch, and let its sequences get on by what comes out."""
        started_at = self.step_started_at = self._clock()
        try:
            logits = self._decode(runs)
            self._num_tokens += self._batch.num_tokens
            picks = self._sample(logits, runs)
            ended_at = self._clock()
            self._learn_cost(runs, ended_at - started_at)
            for run, picked in zip(runs, picks, strict=True):
                self._advance(run, picked, ended_at)
            self._prepare_masks(runs)
            self._scheduler.drop_costly()
        except OutOfCells:
            self._on_out_of_cells(runs)
        except BatchFailed as exc:
            logger.exception("batch failed", extra={"num_sequences": len(runs)})
            for run in runs:
                self._fail(run.sequence, str(exc))
        finally:
            self.num_steps += 1
            self.step_started_at = None

    def _learn_cost(self, runs: list[Run], seconds: float) -> None:
        num_decode_tokens = sum(run.num_outputs for run in runs if run.num_tokens == 1)
        num_prompt_tokens = self._batch.num_tokens - num_decode_tokens
        self._cost.observe(num_prompt_tokens=num_prompt_tokens, num_decode_tokens=num_decode_tokens, seconds=seconds)

    def _decode(self, runs: list[Run]) -> Logits:
        self._batch.clear()
        if all(run.num_tokens == run.num_outputs == 1 for run in runs):
            sequences = [run.sequence for run in runs]
            self._batch.set_decodes(
                [_seq_id(sequence) for sequence in sequences],
                [sequence.token_ids[-1] for sequence in sequences],
                [sequence.num_computed_tokens for sequence in sequences],
            )
        else:
            for run in runs:
                sequence, start = run.sequence, run.sequence.num_computed_tokens
                token_ids = sequence.token_ids[start : start + run.num_tokens] + run.draft
                self._batch.add(_seq_id(sequence), token_ids, start=start, num_outputs=run.num_outputs)
        return self._backend.decode(self._batch)

    def _sample(self, logits: Logits, runs: list[Run]) -> list[TokenIds]:
        """The new tokens of each run: none before its end, else the next one and one for each right draft before it.

        Each row is sampled as if the draft before it were right. What follows a wrong one is void: the tokens are
        those that computing one after the other would have given.
        """
        self._masks.wait()
        if all(run.num_outputs == 1 for run in runs):
            states = [run.sequence.sampler_state for run in runs]
            return [[token_id] for token_id in self._sampler.sample(logits, states)]
        states = [run.sequence.sampler_state for run in runs for _ in range(run.num_outputs)]
        ahead = [ahead for run in runs for ahead in range(run.num_outputs)]
        rows = iter(self._sampler.sample(logits, states, ahead))
        picks = [list(islice(rows, run.num_outputs)) for run in runs]
        return [picked[: _num_right(run.draft, picked) + 1] for run, picked in zip(runs, picks, strict=True)]

    def _advance(self, run: Run, picked: TokenIds, now: float) -> None:
        """Append a run's new tokens up to the first that ends its sequence."""
        sequence = run.sequence
        if NO_TOKEN in picked:
            self._fail_without_token(sequence)
            return
        reason: FinishReason | None = None
        num_new = 0
        for token_id in picked:
            sequence.append(token_id)
            num_new += 1
            reason = self._reason_to_end(sequence, token_id)
            if reason:
                break
        self._scheduler.commit(run, num_accepted=max(0, num_new - 1))
        if picked:
            sequence.note_tokens(now)
        if reason:
            self._remove(sequence, is_answered=True)
            ending = Finished(reason, sequence.usage, timings=sequence.timings)
            self._outputs.append((sequence.request_id, picked[:num_new], ending))
        elif picked:
            self._outputs.append((sequence.request_id, picked, None))

    def _prepare_masks(self, runs: list[Run]) -> None:
        """Let grammars find out what may follow the new tokens, while the next step computes these."""
        live = (run.sequence for run in runs if run.sequence.status is SequenceStatus.RUNNING)
        masks = (sequence.sampler_state.mask for sequence in live)
        self._masks.prepare([mask for mask in masks if mask and mask.is_behind])

    def _reason_to_end(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        if self._is_end(token_id):
            return "stop"
        return "length" if sequence.num_generated >= sequence.max_tokens else None

    # ---- what may go wrong

    def _on_out_of_cells(self, runs: list[Run]) -> None:
        """The backend holds fewer cells than the ledger says; make room and let the next step try again."""
        if not self._scheduler.make_do_with_less():
            reason = "the KV cache cannot hold this request; raise `kv_cells` in models.yaml"
            self._fail(runs[0].sequence, reason)

    def _fail(self, sequence: Sequence, reason: str) -> None:
        self._remove(sequence, keep=False)
        failed = Failed(InternalError.code, f"the engine failed this request: {reason}")
        self._outputs.append((sequence.request_id, [], failed))

    def _fail_without_token(self, sequence: Sequence) -> None:
        """Nothing could be picked: the grammar is at its wits' end, or else the logits are NaN."""
        mask = sequence.sampler_state.mask
        if mask is None or mask.failure is None:
            self._fail(sequence, "the model's logits are not numbers")
        else:
            self._remove(sequence)
            self._outputs.append((sequence.request_id, [], mask.failure))

    def _fail_late(self, sequence: Sequence) -> None:
        self._remove(sequence)
        timeout_s = sequence.deadline_at - sequence.arrived_at
        message = (
            f"not answered within timeout_s = {timeout_s:g} (tokens made: {sequence.num_generated});"
            " allow more time, or ask for fewer tokens"
        )
        self._outputs.append((sequence.request_id, [], Failed(DeadlineExceeded.code, message)))

    def _remove(self, sequence: Sequence, *, keep: bool = True, is_answered: bool = False) -> None:
        self._scheduler.finish(sequence, keep=keep, is_answered=is_answered)
        del self._sequences[sequence.request_id]

    def _take_outputs(self) -> list[TokenOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    # ---- commands from other threads

    def _on_add(self, sequence: Sequence) -> None:
        assert sequence.request_id not in self._sequences
        self._sequences[sequence.request_id] = sequence
        self._scheduler.add(sequence)

    def _on_abort(self, request_id: str) -> None:
        if sequence := self._sequences.get(request_id):
            self._remove(sequence)

    def _on_stop(self) -> None:
        self.is_stopped = True


def _seq_id(sequence: Sequence) -> int:
    assert sequence.seq_id is not None
    return sequence.seq_id


def _num_right(draft: TokenIds, picked: TokenIds) -> int:
    """How many leading tokens of the draft are what was picked in their place."""
    return next(
        (at for at, (guess, token) in enumerate(zip(draft, picked, strict=False)) if guess != token), len(draft)
    )
