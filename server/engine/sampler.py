"""Picking the next token of each sequence from its logits; exact, in the order of llama.cpp's default chain.

grammar -> bias -> penalties -> top_k -> top_p -> min_p -> temperature -> draw

What the truncations leave are the largest logits, of equal ones those with the lower ids. The draw walks along their
probabilities in order of id, up to a number in [0, 1). That defines each choice; all else here is about being quick.

A vocabulary has tens of thousands of tokens, of which few can be drawn. So a few passes over a row, while the processor
has it in its cache, find a floor that all of them reach; only what reaches it is sorted and cut, for many rows at once.
Each choice follows from its own row alone: no operation here rounds differently in company.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from server.engine.backend import Logits
from server.engine.logprobs import rank, rank_columns
from server.engine.sampler_state import OFF, SamplerState, SeenTokens

_Float32s = npt.NDArray[np.float32]
_Floats = npt.NDArray[np.float64]
_Ids = npt.NDArray[np.intp]

NO_TOKEN = -1
"""What is picked from a row that a broken model or kernel has filled with NaN, or where everything is ruled out."""

_STRETCH = 1024
"""Tokens whose weights are summed up, so that a draw from a whole row walks along two short lists."""

_MAX_DEPTH = 32
"""Logits below the best; what lies deeper has less than 1e-8 of all weight, whatever the size of the vocabulary."""

_MAX_AREA = 32768
"""Largest matrix, in numbers, that the candidates of several rows are packed into."""

_LEAST_LOGIT = float(np.finfo(np.float32).min)

_LEAST_TEMPERATURE = 1e-30
"""Where float32 still divides; nothing but the best token is left long before."""

_SLACK = 1e-5
"""Covers the rounding of float32 sums where a floor is only to be low enough; the exact cut comes later."""


class Sampler:
    """Samples rows of logits. The rows are overwritten. One thread at a time.

    Args:
        is_end: bool [vocab_size], true for end-of-generation tokens.
    """

    def __init__(self, is_end: npt.NDArray[np.bool_]) -> None:
        self._vocab_size = len(is_end)
        self._end_ids = np.flatnonzero(is_end)
        num_stretches = -(-self._vocab_size // _STRETCH)
        self._stretches = np.zeros((num_stretches, _STRETCH), np.float32)  # weights of a row, then zeros
        self._weights = self._stretches.ravel()[: self._vocab_size]

    def sample(self, logits: Logits, states: Seq[SamplerState], ahead: Seq[int] | None = None) -> list[int]:
        """Pick one token for each row.

        Args:
            logits: float32 [num_rows, vocab_size].
            states: Row i belongs to `states[i]`; a state may have several rows.
            ahead: Row i picks the token that many places behind the next one of its sequence; by default the next one.
                Above 0 only where there are no penalties and no grammar: they depend on tokens that are not accepted
                yet.

        Returns:
            Token ids; `NO_TOKEN` where the largest logit is no finite number. States whose requests want log
            probabilities have a ranking more.
        """
        assert logits.shape == (len(states), self._vocab_size)
        ahead = ahead or [0] * len(states)
        asking = [i for i, state in enumerate(states) if state.params.num_logprobs is not None]
        raw_rows = logits[asking] if asking else ()  # what the model says, before anything below changes it
        token_ids = [NO_TOKEN] * len(states)
        cut: list[_Candidates] = []
        with np.errstate(over="ignore"):  # far below the best, or divided by a tiny temperature, a logit becomes -inf
            for i, (row, state, places) in enumerate(zip(logits, states, ahead, strict=True)):
                if state.changes_logits:
                    assert places == 0 or not state.has_memory
                    self._adjust(row, state)
                if state.params.temperature == 0:
                    token_ids[i] = _pick_best(row)
                elif self._cuts(state):
                    cut += self._find_candidates(i, row, state, state.uniform(places))
                else:
                    token_ids[i] = self._draw_from_all(row, state.params.temperature, state.uniform(places))
            for group in _groups_of_like_size(cut):
                for candidates, token_id in zip(group, _cut_and_draw(group), strict=True):
                    token_ids[candidates.row] = token_id
        for i, row in zip(asking, raw_rows, strict=True):
            if token_ids[i] != NO_TOKEN:
                index = states[i].num_generated + ahead[i]
                states[i].rankings[index] = rank(row, token_ids[i], num_top=states[i].params.num_logprobs or 0)
        return token_ids

    def _adjust(self, row: _Float32s, state: SamplerState) -> None:
        if state.mask is not None:
            row += state.mask.offsets
        row[state.bias_ids] += state.bias_values
        if state.params.ignore_eos:
            row[self._end_ids] = -np.inf
        if state.seen is not None:
            _penalise(row, state.seen, state.params.repeat_penalty)

    def _cuts(self, state: SamplerState) -> bool:
        _, top_k, top_p, min_log_p = state.truncation
        return top_k < self._vocab_size or top_p < OFF or min_log_p > -OFF

    # ---- rows that top_k, top_p or min_p cut: few tokens are left

    def _find_candidates(self, index: int, row: _Float32s, state: SamplerState, uniform: float) -> list[_Candidates]:
        """All tokens that may be left in a row, and seldom many more. Nothing if the best logit is no number."""
        ranked = rank_columns(row)
        best = float(ranked[-1])
        if not math.isfinite(best):
            return []
        _, top_k, top_p, min_log_p = state.truncation
        floor, total = _LEAST_LOGIT, math.nan
        if top_k <= len(ranked):
            floor = max(floor, float(ranked[-int(top_k)]))
        elif top_k < self._vocab_size:
            floor = max(floor, float(np.partition(row, -int(top_k))[-int(top_k)]))
        else:
            if top_p < OFF:
                floor, total = self._find_nucleus(row, ranked, best, top_p)
            if min_log_p > -OFF:  # one float32 lower, as the sum may be rounded up
                floor = max(floor, float(np.nextafter(np.float32(best + min_log_p), np.float32(_LEAST_LOGIT))))
        (token_ids,) = (row >= floor).nonzero()
        return [_Candidates(index, token_ids, row[token_ids], best, total, state, uniform)]

    def _find_nucleus(self, row: _Float32s, ranked: _Float32s, best: float, top_p: float) -> tuple[float, float]:
        """A floor under what top_p keeps, and the weight of all tokens, that top_p is a share of."""
        weights = self._weigh(row, best, 1.0)
        total = float(weights.sum())
        wanted = top_p * total * (1 + _SLACK)
        reached = np.cumsum(np.exp(ranked - best)[::-1], dtype=np.float64)
        rank = int(np.searchsorted(reached, wanted))
        if rank < len(reached):  # the largest maxima of columns weigh enough by themselves
            return float(ranked[-1 - rank]), total
        return _survey(row, best, weights, wanted), total

    # ---- rows that nothing cuts

    def _draw_from_all(self, row: _Float32s, temperature: float, uniform: float) -> int:
        """First a stretch of tokens, then one of them."""
        best = float(row.max())
        if not math.isfinite(best):
            return NO_TOKEN
        self._weigh(row, best, temperature)
        stretch, rest = _pick(self._stretches.sum(axis=1), uniform)
        place, _ = _pick(self._stretches[stretch], rest)
        return stretch * _STRETCH + place

    def _weigh(self, row: _Float32s, best: float, temperature: float) -> _Float32s:
        """exp((logit - best) / temperature), valid until the next call.

        In float32: an error of 1e-7 in a probability is less than what the order of additions does to a logit.
        """
        weights = self._weights
        np.subtract(row, best, out=weights)
        if temperature != 1:
            np.divide(weights, max(temperature, _LEAST_TEMPERATURE), out=weights)
        return np.exp(weights, out=weights)


class _Candidates(NamedTuple):
    """The tokens of one row among which the draw will be, in order of id.

    Attributes:
        row: Which row it is.
        logits: Theirs; all other tokens of the row have lower ones.
        best: The largest logit.
        total: The weight that top_p is a share of. NaN where it comes after top_k: then it is the weight of what that
            leaves.
    """

    row: int
    token_ids: _Ids
    logits: _Float32s
    best: float
    total: float
    state: SamplerState
    uniform: float


def _penalise(row: _Float32s, seen: SeenTokens, repeat_penalty: float) -> None:
    values = row[seen.ids]
    if repeat_penalty != 1:
        values = np.where(values > 0, values / repeat_penalty, values * repeat_penalty)
    row[seen.ids] = values - seen.deductions


def _pick_best(row: _Float32s) -> int:
    token_id = int(row.argmax())  # the place of a NaN, if there is one
    return token_id if math.isfinite(row[token_id]) else NO_TOKEN


def _survey(row: _Float32s, best: float, weights: _Float32s, wanted: float) -> float:
    """A logit such that all tokens that reach it weigh at least `wanted` together, and not much more.

    Weights are summed up by depth below the best, in steps of 1/8 logit: some ten times faster than sorting the row.
    """
    depths = np.minimum((best - row) * 8, _MAX_DEPTH * 8).astype(np.intp)
    depth = int(np.searchsorted(np.cumsum(np.bincount(depths, weights)), wanted))
    return best - (depth + 2) / 8 if depth < _MAX_DEPTH * 8 else _LEAST_LOGIT  # one step more, for rounding


def _groups_of_like_size(all_candidates: list[_Candidates]) -> Iterator[list[_Candidates]]:
    """Deal rows into groups that fit into one matrix, so that a row of many candidates widens no other's."""
    group: list[_Candidates] = []
    for candidates in sorted(all_candidates, key=lambda each: len(each.token_ids)):
        if group and (len(group) + 1) * len(candidates.token_ids) > _MAX_AREA:
            yield group
            group = []
        group.append(candidates)
    if group:
        yield group


def _cut_and_draw(group: list[_Candidates]) -> list[int]:
    """Apply top_k, top_p and min_p, in this order, and draw from what is left: one token id for each row."""
    terms = np.array([(*each.state.truncation, each.best, each.total, each.uniform) for each in group])
    temperature, top_k, top_p, min_log_p, best, total, uniform = terms.T[:, :, None]
    values = np.full((len(group), len(group[-1].logits)), -np.inf, np.float32)
    for row, each in zip(values, group, strict=True):
        row[: len(each.logits)] = each.logits
    ranked = -np.sort(-values, axis=1)
    num_kept = _count_kept(ranked - best, total, top_k, top_p, min_log_p)
    is_kept = _are_largest(values, ranked[np.arange(len(group)), num_kept - 1, None], num_kept[:, None])
    cumulated = np.cumsum(np.exp(np.where(is_kept, values - best, -np.inf) / temperature), axis=1)
    places = (cumulated <= uniform * cumulated[:, -1:]).sum(axis=1)
    return [int(each.token_ids[place]) for each, place in zip(group, places.tolist(), strict=True)]


def _count_kept(relative: _Floats, total: _Floats, top_k: _Floats, top_p: _Floats, min_log_p: _Floats) -> _Ids:
    """How many candidates are left in each row.

    Args:
        relative: Their logits less the best, by falling value: [num_rows, num_candidates]. All else: [num_rows, 1].
    """
    is_kept = np.arange(relative.shape[1]) < top_k
    weights = np.where(is_kept, np.exp(relative), 0.0)
    cumulated = np.cumsum(weights, axis=1)
    total = np.where(np.isnan(total), cumulated[:, -1:], total)
    # The smallest set whose probability reaches top_p: the token that crosses the border still belongs to it.
    is_kept &= cumulated - weights < top_p * total
    is_kept &= relative >= min_log_p
    num_kept: _Ids = np.maximum(is_kept.sum(axis=1), 1)
    return num_kept


def _are_largest(values: _Float32s, floors: _Float32s, counts: _Ids) -> npt.NDArray[np.bool_]:
    """Mark the `counts` largest values of each row, the least of which is `floors`; of equal ones the first."""
    above = values > floors
    level = values == floors
    missing = counts - above.sum(axis=1, keepdims=True)
    result: npt.NDArray[np.bool_] = above | (level & (np.cumsum(level, axis=1) <= missing))
    return result


def _pick(weights: _Float32s, uniform: float) -> tuple[int, float]:
    """Inverse-transform sampling: the place whose share of the weight holds `uniform`, from [0, 1).

    Returns:
        The place, never one without weight, and how far into its share `uniform` lies, again in [0, 1).
    """
    cumulated = np.cumsum(weights, dtype=np.float64)
    target = uniform * float(cumulated[-1])
    place = int(np.searchsorted(cumulated, target, side="right"))
    beyond = (float(cumulated[place]) - target) / float(weights[place])  # above 0; above 1 by rounding only
    return place, max(1 - beyond, 0.0)
