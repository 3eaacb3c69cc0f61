"""The step loop: schedule, compute, sample, emit. Runs on one thread; others talk to it through its inbox."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from functools import partial

from server.engine.backend import Backend, BatchFailed, Logits, OutOfCells
from server.engine.batch import Batch
from server.engine.sampler import NO_TOKEN, Sampler
from server.engine.scheduler import Run, Scheduler
from server.engine.sequence import Sequence
from server.errors import InternalError
from server.types import Delta, Failed, Finished, FinishReason, StreamEvent

logger = logging.getLogger(__name__)

Output = tuple[str, StreamEvent]
"""(request_id, event)"""


class Engine:
    """Continuous batching of sequences over one backend.

    `add`, `abort` and `stop` may be called from any thread; everything else from the engine's own. Every added
    sequence ends exactly once: with `Finished` or `Failed` among the outputs, or silently when aborted.

    Attributes:
        num_steps: Steps completed.
        step_started_at: `time.monotonic()` at the start of the step that runs now; None between steps.
    """

    def __init__(
        self, backend: Backend, scheduler: Scheduler, sampler: Sampler, *, is_end: Callable[[int], bool]
    ) -> None:
        self._backend = backend
        self._scheduler = scheduler
        self._sampler = sampler
        self._is_end = is_end
        self._batch = Batch(backend.max_batch_tokens)
        self._sequences: dict[str, Sequence] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
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
        """Block until something is to do, or the engine is stopped."""
        if not self._sequences:
            self._inbox.get()()

    def step(self) -> list[Output]:
        """Compute one batch; return what it has to say: an event or two for each sequence it touched."""
        self._drain_inbox()
        runs = self._scheduler.schedule()
        if not runs:
            return []
        self.step_started_at = time.monotonic()
        try:
            logits = self._decode(runs)
            ready = [run.sequence for run in runs if run.reaches_end]
            self._scheduler.commit(runs)
            return self._advance(ready, self._sampler.sample(logits, ready))
        except OutOfCells:
            return self._on_out_of_cells(runs)
        except BatchFailed as exc:
            logger.exception("batch failed", extra={"num_sequences": len(runs)})
            return [output for run in runs for output in self._fail(run.sequence, str(exc))]
        finally:
            self.num_steps += 1
            self.step_started_at = None

    def fail_all(self, reason: str) -> list[Output]:
        """End every live request with an error: the way out after a bug in `step`."""
        return [output for sequence in list(self._sequences.values()) for output in self._fail(sequence, reason)]

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    def check_integrity(self) -> None:
        """Assert that everything has been given back: call when no request is live."""
        assert not self._sequences
        self._scheduler.check_integrity()

    # ---- the parts of a step

    def _drain_inbox(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()

    def _decode(self, runs: list[Run]) -> Logits:
        self._batch.clear()
        for run in runs:
            sequence, start = run.sequence, run.sequence.num_computed_tokens
            assert sequence.seq_id is not None
            token_ids = sequence.token_ids[start : start + run.num_tokens]
            self._batch.add(sequence.seq_id, token_ids, start=start, wants_logits=run.reaches_end)
        return self._backend.decode(self._batch)

    def _advance(self, sequences: list[Sequence], token_ids: list[int]) -> list[Output]:
        """Append each sequence's new token; turn it into text, or into the end."""
        outputs: list[Output] = []
        for sequence, token_id in zip(sequences, token_ids, strict=True):
            if token_id == NO_TOKEN:
                outputs += self._fail(sequence, "the model's logits are not numbers")
                continue
            sequence.token_ids.append(token_id)
            reason, text = self._outcome(sequence, token_id)
            if text:
                outputs.append((sequence.request_id, Delta(text)))
            if reason:
                outputs.append((sequence.request_id, Finished(reason, sequence.usage)))
                self._remove(sequence)
        return outputs

    def _outcome(self, sequence: Sequence, token_id: int) -> tuple[FinishReason | None, str]:
        detokenizer = sequence.detokenizer
        if self._is_end(token_id):
            return "stop", detokenizer.flush()
        text = detokenizer.push(token_id)
        if detokenizer.stopped:
            return "stop", text
        if sequence.num_generated >= sequence.max_tokens:
            return "length", text + detokenizer.flush()
        return None, text

    # ---- what may go wrong

    def _on_out_of_cells(self, runs: list[Run]) -> list[Output]:
        """The backend holds fewer cells than the ledger says; make room and let the next step try again."""
        if self._scheduler.make_do_with_less():
            return []
        return self._fail(runs[0].sequence, "the KV cache cannot hold this request; raise `kv_cells` in models.yaml")

    def _fail(self, sequence: Sequence, reason: str) -> list[Output]:
        self._remove(sequence, keep=False)
        return [(sequence.request_id, Failed(InternalError.code, f"the engine failed this request: {reason}"))]

    def _remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        self._scheduler.finish(sequence, keep=keep)
        del self._sequences[sequence.request_id]

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
