"""Picking the next token of each sequence from its logits; exact, in the order of llama.cpp's default chain.

penalties, then bias -> top_k -> top_p -> min_p -> temperature -> draw

NOTE: llama.cpp adds the bias before the penalties; the two differ where a repeat penalty meets a biased token.

A vocabulary has tens of thousands of tokens, and a step tens of rows. So the work on whole rows is one pass of numpy
over all of them at once; what is sorted and exponentiated are the few candidates that can be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.engine.backend import Logits
from server.engine.sequence import Sequence
from server.types import SamplingParams

_Row = npt.NDArray[np.float32]
_Ids = npt.NDArray[np.intp]
_Floats = npt.NDArray[np.float64]

NO_TOKEN = -1
"""What is picked from a row that a broken model or kernel has filled with NaN, or where everything is ruled out."""

NUM_COLUMNS = 1024
"""Rows are seen as [height, 1024]; the maxima of the columns tell where large logits are. See `_largest`."""

_LEAST_TEMPERATURE = 1e-30
"""Where float32 still divides; nothing but the best token is left long before."""

NUM_CANDIDATES = 64
"""Candidates looked at first: enough for the usual top_k of 40, and for most rows that top_p or min_p cut."""


class Sampler:
    """Samples rows of logits. The rows are overwritten.

    Args:
        is_end: bool [vocab_size], true for end-of-generation tokens.
    """

    def __init__(self, is_end: npt.NDArray[np.bool_]) -> None:
        self._end_ids = np.flatnonzero(is_end)

    def sample(self, logits: Logits, sequences: Seq[Sequence]) -> list[int]:
        """Pick one token for each row; row i belongs to `sequences[i]`. `NO_TOKEN` where no logit is a number."""
        if not sequences:
            return []
        for row, sequence in zip(logits, sequences, strict=True):
            self._penalise(row, sequence)
        token_ids = logits.argmax(axis=1)  # the place of a NaN, if there is one
        is_sound = np.isfinite(logits[np.arange(len(logits)), token_ids])
        is_drawn = np.array([sequence.sampling.temperature > 0 for sequence in sequences])
        drawn = np.flatnonzero(is_drawn & is_sound)
        if len(drawn):
            rows = logits if len(drawn) == len(logits) else logits[drawn]
            token_ids[drawn] = _draw_rows(rows, [sequences[i] for i in drawn.tolist()])
        token_ids[~is_sound] = NO_TOKEN
        result: list[int] = token_ids.tolist()
        return result

    def _penalise(self, row: _Row, sequence: Sequence) -> None:
        sampling = sequence.sampling
        if sampling.ignore_eos:
            row[self._end_ids] = -np.inf
        if sampling.repeat_penalty != 1.0:
            seen = np.unique(np.asarray(sequence.token_ids, np.int64))
            values = row[seen]
            row[seen] = np.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
        if (sampling.presence_penalty or sampling.frequency_penalty) and sequence.num_generated:
            token_ids, counts = np.unique(np.asarray(sequence.generated, np.int64), return_counts=True)
            row[token_ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts.astype(np.float32)
        if sampling.logit_bias:
            row[list(sampling.logit_bias)] += np.fromiter(sampling.logit_bias.values(), np.float32)


def _draw_rows(logits: Logits, sequences: Seq[Sequence]) -> _Ids:
    """One drawn token id for each row; all have a temperature above 0."""
    options = _Options.of([sequence.sampling for sequence in sequences], vocab_size=logits.shape[1])
    uniform = np.array([sequence.random.random() for sequence in sequences])
    drawn = np.empty(len(sequences), np.intp)
    cut = np.flatnonzero(options.truncates)
    if len(cut):
        drawn[cut] = _draw_truncated(
            logits if len(cut) == len(logits) else logits[cut], options.at(cut), uniform[cut], NUM_CANDIDATES
        )
    for i in np.flatnonzero(~options.truncates):
        drawn[i] = _draw_from_all(logits[i], float(options.temperature[i]), float(uniform[i]))
    return drawn


@dataclass(frozen=True)
class _Options:
    """Sampling parameters of several rows, each an array of shape [num_rows]; what is off is infinite."""

    temperature: _Floats
    top_k: _Ids
    top_p: _Floats
    min_log_p: _Floats
    vocab_size: int

    @classmethod
    def of(cls, sampling: Seq[SamplingParams], *, vocab_size: int) -> _Options:
        with np.errstate(divide="ignore"):
            return cls(
                temperature=np.array([params.temperature for params in sampling]),
                top_k=np.array([min(params.top_k or vocab_size, vocab_size) for params in sampling], np.intp),
                top_p=np.array([params.top_p if params.top_p < 1 else np.inf for params in sampling]),
                min_log_p=np.log(np.array([params.min_p for params in sampling])),
                vocab_size=vocab_size,
            )

    def at(self, rows: _Ids) -> _Options:
        return _Options(
            self.temperature[rows], self.top_k[rows], self.top_p[rows], self.min_log_p[rows], self.vocab_size
        )

    @property
    def limits_k(self) -> npt.NDArray[np.bool_]:
        return self.top_k < self.vocab_size

    @property
    def truncates(self) -> npt.NDArray[np.bool_]:
        return self.limits_k | (self.top_p < np.inf) | (self.min_log_p > -np.inf)


def _draw_truncated(logits: Logits, options: _Options, uniform: _Floats, num_candidates: int) -> _Ids:
    """Draw from the largest `num_candidates` of each row, and again from more where these turn out to be too few."""
    token_ids, values, sizes = _largest(logits, num_candidates)
    is_kept = _truncate(logits, values, options)
    drawn = _draw(token_ids, values, is_kept, options.temperature, uniform)
    kept_all = is_kept.sum(axis=1) == sizes
    is_short = np.where(options.limits_k, options.top_k > sizes, kept_all) & (sizes < options.vocab_size)
    if is_short.any():
        short = np.flatnonzero(is_short)
        drawn[short] = _draw_truncated(logits[short], options.at(short), uniform[short], 8 * num_candidates)
    return drawn


def _largest(logits: Logits, count: int) -> tuple[_Ids, _Floats, _Ids]:
    """The `count` largest logits of each row and all that equal the least of them, by falling value, ties by id.

    The maxima of 1,024 columns of a row are 1,024 different logits, so the least of the `count` largest maxima is a
    bound that at least `count` logits reach, and few more: finding them is two passes over the rows.

    Returns:
        Token ids and values, both [num_rows, width], and how many of them are real in each row; the rest is -inf.
    """
    num_rows, vocab_size = logits.shape
    height = vocab_size // NUM_COLUMNS
    if height > 1 and count < NUM_COLUMNS:
        maxima = logits[:, : height * NUM_COLUMNS].reshape(num_rows, height, NUM_COLUMNS).max(axis=1)
        bound = np.partition(maxima, NUM_COLUMNS - count, axis=1)[:, NUM_COLUMNS - count]
    elif count < vocab_size:
        bound = np.partition(logits, vocab_size - count, axis=1)[:, vocab_size - count]
    else:
        bound = np.full(num_rows, -np.inf, np.float32)
    found = np.flatnonzero(logits >= bound[:, None])
    rows, ids = np.divmod(found, vocab_size)
    sizes = np.bincount(rows, minlength=num_rows)
    slots = np.arange(len(found)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    values = np.full((num_rows, sizes.max()), -np.inf)
    values[rows, slots] = logits.ravel()[found]
    token_ids = np.zeros(values.shape, np.intp)
    token_ids[rows, slots] = ids
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(token_ids, order, axis=1), np.take_along_axis(values, order, axis=1), sizes


def _truncate(logits: Logits, values: _Floats, options: _Options) -> npt.NDArray[np.bool_]:
    """Which candidates top_k, top_p and min_p leave, in this order. `values` are falling; the first is always left."""
    is_kept = (np.arange(values.shape[1]) < options.top_k[:, None]) & (values > -np.inf)
    relative = values - values[:, :1]
    weights = np.where(is_kept, np.exp(relative), 0.0)
    totals = weights.sum(axis=1)
    for i in np.flatnonzero(~options.limits_k & (options.top_p < np.inf)):
        totals[i] = np.exp(logits[i] - logits[i].max()).sum(dtype=np.float64)
    # The smallest set whose probability reaches top_p: the token that crosses the border still belongs to it.
    is_kept &= np.cumsum(weights, axis=1) - weights < (options.top_p * totals)[:, None]
    is_kept &= relative >= options.min_log_p[:, None]
    is_kept[:, 0] = True
    return is_kept


def _draw(
    token_ids: _Ids, values: _Floats, is_kept: npt.NDArray[np.bool_], temperature: _Floats, uniform: _Floats
) -> _Ids:
    """Inverse-transform sampling: the token whose share of the kept ones' distribution holds `uniform` in [0, 1)."""
    with np.errstate(over="ignore"):  # a tiny temperature leaves the best token alone at 0, all others at -inf
        weights = np.where(is_kept, np.exp((values - values[:, :1]) / temperature[:, None]), 0.0)
    cumulated = np.cumsum(weights, axis=1)
    picks = (cumulated <= (uniform * cumulated[:, -1])[:, None]).sum(axis=1)
    last_kept = is_kept.shape[1] - 1 - is_kept[:, ::-1].argmax(axis=1)
    chosen = np.minimum(picks, last_kept)[:, None]
    return np.take_along_axis(token_ids, chosen, axis=1)[:, 0]


def _draw_from_all(row: _Row, temperature: float, uniform: float) -> int:
    """The same over a whole row that nothing truncates, by halves: first a stretch of tokens, then one of them."""
    with np.errstate(over="ignore"):
        weights = np.exp((row - row.max()) / np.float32(max(temperature, _LEAST_TEMPERATURE)))
    starts = np.arange(0, len(weights), NUM_COLUMNS)
    stretches = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    target = uniform * stretches[-1]
    stretch = int(np.searchsorted(stretches, target, side="right"))
    before = stretches[stretch - 1] if stretch else 0.0
    inside = np.cumsum(weights[starts[stretch] : starts[stretch] + NUM_COLUMNS], dtype=np.float64)
    index = int(np.searchsorted(inside, target - before, side="right"))
    last = int(
        np.flatnonzero(weights[starts[stretch] : starts[stretch] + NUM_COLUMNS])[-1]
    )  # rounding may step past it
    return int(starts[stretch]) + min(index, last)
