"""Which tokens a grammar allows next, and that a grammar which fails harms nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from server.engine import token_mask
from server.engine.grammar_compiler import GrammarCompiler
from server.engine.token_mask import TokenMask, TokenMasks
from server.types import Grammar
from tests.fakes.vocabulary import END, PIECES, tokenize


def regex(text: str) -> Grammar:
    return Grammar("regex", text, "grammar")


def allowed(mask: TokenMask) -> set[bytes]:
    return {PIECES[token_id] for token_id in np.flatnonzero(mask.offsets == 0)}


def read(mask: TokenMask, text: str) -> None:
    for token_id in tokenize(text):
        mask.accept(token_id)
        mask.advance()


def test_a_mask_allows_what_may_come_next_and_nothing_else(grammars: GrammarCompiler) -> None:
    mask = grammars.mask(regex("ab?c"))

    assert allowed(mask) == {b"a", b"ab", b"abc"}
    read(mask, "ab")
    assert allowed(mask) == {b"c"}


def test_only_a_complete_text_may_end(grammars: GrammarCompiler) -> None:
    mask = grammars.mask(regex("10*"))

    assert mask.offsets[END] == -np.inf
    read(mask, "1")
    assert mask.offsets[END] == 0
    assert allowed(mask) == {b"", b"0"}


def test_a_text_that_cannot_go_on_may_only_end(grammars: GrammarCompiler) -> None:
    mask = grammars.mask(regex("abc"))
    read(mask, "abc")

    assert np.flatnonzero(mask.offsets == 0).tolist() == [END]
    assert mask.failure is None


def test_masks_of_one_grammar_do_not_disturb_each_other(grammars: GrammarCompiler) -> None:
    one, other = grammars.mask(regex("a{3}|b")), grammars.mask(regex("a{3}|b"))
    read(one, "a")

    assert allowed(one) == {b"a"}
    assert allowed(other) == {b"a", b"b"}


def test_a_mask_that_is_not_followed_fails_closed(grammars: GrammarCompiler) -> None:
    mask, neighbour = grammars.mask(regex("ab")), grammars.mask(regex("ab"))
    read(mask, "x")

    assert mask.failure is not None and mask.failure.code == "internal_error"
    assert not np.isfinite(mask.offsets).any()
    assert allowed(neighbour) == {b"ab"}


def test_a_grammar_that_takes_too_long_is_given_up(grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_mask, "BURST_S", 0.0)
    monkeypatch.setattr(token_mask, "S_PER_TOKEN", 0.0)
    mask = grammars.mask(regex("[ab]+"))
    read(mask, "a")

    assert mask.failure is not None
    assert (mask.failure.code, mask.failure.param) == ("invalid_value", "grammar")
    assert "too much time" in mask.failure.message


def test_masks_are_advanced_by_the_time_that_somebody_waits_for_them(grammars: GrammarCompiler) -> None:
    masks, both = TokenMasks(), [grammars.mask(regex("a+")), grammars.mask(regex("b+"))]
    masks.wait()
    for mask, text in zip(both, ("a", "b"), strict=True):
        mask.accept(tokenize(text)[0])
    assert all(mask.is_behind for mask in both)

    masks.prepare(both)
    masks.wait()

    assert not any(mask.is_behind for mask in both)
    assert [PIECES[END] in allowed(mask) for mask in both] == [True, True]
