"""Picking the next token of each sequence from its logits; exact, in the order of llama.cpp's default chain.

penalties and bias -> top_k -> top_p -> min_p -> temperature -> draw
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from server.engine.backend import Logits
from server.engine.sequence import Sequence
from server.types import SamplingParams

_Row = npt.NDArray[np.float32]


class Sampler:
    """Samples rows of logits. The rows are overwritten.

    Args:
        is_end: bool [vocab_size], true for end-of-generation tokens.
    """

    def __init__(self, is_end: npt.NDArray[np.bool_]) -> None:
        self._end_ids = np.flatnonzero(is_end)

    def sample(self, logits: Logits, sequences: Seq[Sequence]) -> list[int]:
        """Pick one token for each row; row i belongs to `sequences[i]`."""
        return [self._sample_row(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]

    def _sample_row(self, row: _Row, sequence: Sequence) -> int:
        sampling = sequence.sampling
        if sampling.ignore_eos:
            row[self._end_ids] = -np.inf
        _penalise(row, sequence)
        if sampling.temperature == 0:
            return int(row.argmax())
        token_ids, logits = _truncate(row, sampling)
        with np.errstate(over="ignore"):  # a tiny temperature leaves the best token alone at 0, all others at -inf
            scaled = (logits - logits[0]) / sampling.temperature
        return _draw(token_ids, scaled, sequence.random.random())


def _penalise(row: _Row, sequence: Sequence) -> None:
    sampling = sequence.sampling
    if sampling.repeat_penalty != 1.0:
        seen = np.unique(np.asarray(sequence.token_ids, np.int64))
        values = row[seen]
        row[seen] = np.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and sequence.num_generated:
        token_ids, counts = np.unique(np.asarray(sequence.generated, np.int64), return_counts=True)
        row[token_ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts.astype(np.float32)
    if sampling.logit_bias:
        row[list(sampling.logit_bias)] += np.fromiter(sampling.logit_bias.values(), np.float32)


def _truncate(row: _Row, sampling: SamplingParams) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Token ids that may be drawn and their logits, by falling logit (ties: smaller id first)."""
    if 0 < sampling.top_k < len(row):
        token_ids = np.flatnonzero(row >= np.partition(row, -sampling.top_k)[-sampling.top_k])  # ties make it more
    else:
        token_ids = np.flatnonzero(row > -np.inf)
    token_ids = token_ids[np.argsort(-row[token_ids], kind="stable")][: sampling.top_k or None]
    logits = row[token_ids].astype(np.float64)
    if sampling.top_p < 1.0:
        # The smallest set whose probability reaches top_p: the token that crosses the border still belongs to it.
        shares = _softmax(logits)
        logits = logits[: max(1, int(np.count_nonzero(np.cumsum(shares) - shares < sampling.top_p)))]
    if sampling.min_p > 0.0:
        logits = logits[logits >= logits[0] + np.log(sampling.min_p)]
    return token_ids[: len(logits)], logits


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities of logits of which the first is the largest."""
    weights: npt.NDArray[np.float64] = np.exp(logits - logits[0])
    weights /= weights.sum()
    return weights


def _draw(token_ids: npt.NDArray[np.intp], logits: npt.NDArray[np.float64], uniform: float) -> int:
    """Inverse-transform sampling: the token whose share of the distribution holds `uniform` in [0, 1)."""
    cumulated = np.cumsum(_softmax(logits))
    index = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    return int(token_ids[min(index, len(token_ids) - 1)])
