"""Runs trials of a loaded model on small contexts, never larger than the one it will serve with."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from server.bindings.context_options import ContextOptions
from server.bindings.llama_context import DECODED, LlamaContext
from server.bindings.llama_model import LlamaModel
from server.errors import LoadFailed
from server.workers.tuning import OutOfTime, RuntimeSettings, Trial

MAX_SEQUENCES = 16
"""Sequences of a trial. More cost more time and tell no more."""

_LENGTHS = (1024, 512, 256, 128)
"""Tokens of a trial's sequences: the longest that the machine computes in a tenth of the budget."""

_MIN_LENGTH = 32
"""With fewer cells for each there are fewer sequences."""

_NUM_STEPS = 3
"""Decode steps of a kind; the fastest counts, since other programs can only slow one down."""

_WARM_UP_TOKENS = 32
_OVERRUN = 2.0
"""A trial is cut off when the whole search has taken so many times its budget."""

TokenArray = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


class Probe:
    """Measures how fast a model runs with given settings. For the thread that will run the model.

    Attributes:
        prompt_tokens: Length of the prompt in trials.

    Raises:
        LoadFailed: The first context cannot be made.
    """

    def __init__(
        self,
        model: LlamaModel,
        first: RuntimeSettings,
        *,
        max_sequences: int,
        num_cells: int,
        context_length: int,
        batch_tokens: int,
        budget_s: float,
    ) -> None:
        """Find out how much can be measured within the budget.

        Args:
            first: Settings for a first look at the speed of the machine.
            max_sequences, num_cells, context_length, batch_tokens: Of the context that will serve, and of one request;
                trials stay below them.
        """
        self._model = model
        self._batch_tokens = batch_tokens
        self._cut_off = time.monotonic() + _OVERRUN * budget_s
        self._num_sequences = max(1, min(max_sequences, MAX_SEQUENCES, num_cells // _MIN_LENGTH))
        room = min(num_cells // self._num_sequences, context_length)
        # Deterministic, and unlike text: what the tokens are changes no timing, save that of experts.
        self._token_ids = np.random.default_rng(0).integers(0, model.vocab.size, max(_LENGTHS)).astype(np.int32)
        affordable = self._prefill_rate(first) * budget_s / 10
        self._length = min(next((length for length in _LENGTHS if length <= affordable), _LENGTHS[-1]), room)
        self.prompt_tokens = self._length - _NUM_STEPS

    def measure(self, settings: RuntimeSettings) -> Trial:
        """Run one trial; settings that this model or machine does not take give one that has failed.

        Raises:
            OutOfTime: It takes far too long.
        """
        try:
            with self._context(settings, num_sequences=self._num_sequences, length=self._length) as context:
                return self._run(settings, context)
        except LoadFailed as exc:
            return Trial(settings=settings, failure=exc.message)

    def _run(self, settings: RuntimeSettings, context: LlamaContext) -> Trial:
        prefill_s = self._prefill(context, self.prompt_tokens)
        prompt = context.save(0)
        if not all(context.restore(seq_id, prompt) for seq_id in range(1, self._num_sequences)):
            raise LoadFailed("the cells of a sequence cannot be copied")
        unrelated_s = shared_s = self._decode(context)
        # In streams, sequences that share a prompt have a copy each: that is what has been measured just now.
        if settings.kv == "unified" and context.can_share_prefixes:
            context.remove(0, start=self.prompt_tokens)
            for seq_id in range(1, self._num_sequences):
                context.remove(seq_id)
                context.share(0, seq_id, length=self.prompt_tokens)
            shared_s = self._decode(context)
        return Trial(
            settings=settings,
            num_sequences=self._num_sequences,
            num_prompt_tokens=self.prompt_tokens,
            prefill_tokens_per_s=round(self.prompt_tokens / prefill_s, 1),
            unrelated_step_ms=round(1000 * unrelated_s, 2),
            shared_step_ms=round(1000 * shared_s, 2),
        )

    def _prefill_rate(self, settings: RuntimeSettings) -> float:
        """Tokens per second of a very short prompt; of the second one, since the first reads the weights from disk."""
        with self._context(settings, num_sequences=1, length=2 * _WARM_UP_TOKENS) as context:
            self._prefill(context, _WARM_UP_TOKENS)
            context.remove(0)
            return _WARM_UP_TOKENS / self._prefill(context, _WARM_UP_TOKENS)

    def _prefill(self, context: LlamaContext, num_tokens: int) -> float:
        """Compute a prompt in sequence 0; return the seconds that it took."""
        started = time.perf_counter()
        for start in range(0, num_tokens, self._batch_tokens):
            positions = np.arange(start, min(start + self._batch_tokens, num_tokens), dtype=np.int32)
            wants_logits = positions == num_tokens - 1
            self._compute(context, self._token_ids[positions], positions, np.zeros_like(positions), wants_logits)
        return time.perf_counter() - started

    def _decode(self, context: LlamaContext) -> float:
        """Give every sequence a few tokens behind its prompt, one in a step; return the seconds of the fastest."""
        seq_ids = np.arange(self._num_sequences, dtype=np.int32)
        token_ids, wants_logits = self._token_ids[: len(seq_ids)], np.ones(len(seq_ids), np.bool_)
        fastest_s = float("inf")
        for step in range(_NUM_STEPS):
            positions = np.full_like(seq_ids, self.prompt_tokens + step)
            started = time.perf_counter()
            self._compute(context, token_ids, positions, seq_ids, wants_logits)
            fastest_s = min(fastest_s, time.perf_counter() - started)
        return fastest_s

    def _compute(
        self, context: LlamaContext, token_ids: TokenArray, positions: TokenArray, seq_ids: TokenArray, wants: Flags
    ) -> None:
        if time.monotonic() > self._cut_off:
            raise OutOfTime
        status = context.decode(token_ids, positions, seq_ids, wants)
        if status != DECODED:
            raise LoadFailed(f"llama_decode returned {status} for {len(token_ids)} tokens")
        context.logits(int(wants.sum()))  # waits for a GPU

    def _context(self, settings: RuntimeSettings, *, num_sequences: int, length: int) -> LlamaContext:
        options = ContextOptions(
            num_cells=num_sequences * length,
            max_sequences=num_sequences,
            max_batch_tokens=self._batch_tokens,
            max_ubatch_tokens=settings.ubatch_tokens,
            num_threads=settings.threads,
            streams=settings.kv == "streams",
            flash_attention=settings.flash_attention,
            kv_type=settings.kv_type,
        )
        return LlamaContext(self._model, options)
