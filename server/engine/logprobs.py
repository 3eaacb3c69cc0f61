"""How likely a picked token was, and what else might have been picked: log probabilities from a row of logits.

They are the model's own: before bias, penalties, grammar, truncation and temperature, as OpenAI and vLLM tell them. So
they compare between requests, and a token that a grammar forces shows how unlikely it was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_Float32s = npt.NDArray[np.float32]

LEAST_LOGPROB = -9999.0
"""Stands for everything below, infinity too, which JSON does not have; OpenAI writes the same."""

_NUM_COLUMNS = 512
"""See `rank_columns`. numpy sorts 512 numbers several times faster than 1,024."""


class Ranking(NamedTuple):
    """Log probabilities at one place of a text.

    Attributes:
        logprob: Of the token that was picked.
        top: The likeliest tokens and theirs, the best first; of equal ones those with the lower ids.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]


def rank(row: _Float32s, token_id: int, *, num_top: int) -> Ranking:
    """Tell how likely a token is.

    Args:
        row: The model's logits, of which the largest is finite. Not changed.
        num_top: How many of the likeliest to name, 512 at most; fewer if there are no more.
    """
    best = row.max()
    with np.errstate(over="ignore"):  # far below the best, a logit becomes -inf
        total = float(best) + float(np.log(np.exp(row - best).sum(dtype=np.float64)))
    top_ids = _find_largest(row, min(num_top, len(row))) if num_top else ()
    return Ranking(
        max(float(row[token_id]) - total, LEAST_LOGPROB),
        tuple((int(each), max(float(row[each]) - total, LEAST_LOGPROB)) for each in top_ids),
    )


def _find_largest(row: _Float32s, count: int) -> npt.NDArray[np.intp]:
    """The places of the largest logits, by falling value."""
    ranked = rank_columns(row)
    assert count <= len(ranked)
    (places,) = (row >= ranked[-count]).nonzero()
    order = np.argsort(-row[places], kind="stable")
    largest: npt.NDArray[np.intp] = places[order[:count]]
    return largest


def rank_columns(row: _Float32s) -> _Float32s:
    """The maxima of up to 512 columns of a row seen as a matrix, by rising value. NaN comes last, if there is one.

    They are that many different logits, so at least k logits reach the k-th largest of them; and seldom many more,
    because the largest logits of a row mostly lie in different columns.
    """
    num_columns = min(_NUM_COLUMNS, len(row))
    num_whole = len(row) // num_columns * num_columns
    maxima: _Float32s = np.maximum.reduce(row[:num_whole].reshape(-1, num_columns), axis=0)
    if num_rest := len(row) - num_whole:
        np.maximum(maxima[:num_rest], row[num_whole:], out=maxima[:num_rest])
    maxima.sort()
    return maxima
