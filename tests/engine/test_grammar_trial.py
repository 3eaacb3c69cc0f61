"""Grammars are tried out where they can do no harm."""

from __future__ import annotations

import resource
import select
import time
from collections.abc import Iterator
from unittest.mock import Mock

import psutil
import pytest

from server.engine.grammar_text import Trial
from server.engine.grammar_trial import GrammarTrials
from server.types import Grammar

GOOD = Trial(Grammar("regex", "a+", "grammar"))
ENDLESS = Trial(Grammar("lark", "start: A\nA: " + " & ".join(f"/.*{n}.*/" for n in range(300)), "grammar"))


@pytest.fixture
def trials() -> Iterator[GrammarTrials]:
    trials = GrammarTrials(max_s=0.5)
    yield trials
    trials.close()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_a_good_grammar_comes_back_as_the_compiler_wants_it(trials: GrammarTrials) -> None:
    assert trials.run(GOOD).source == '{"grammars": [{"lark_grammar": "start: /a+/"}]}'


def test_one_child_serves_all(trials: GrammarTrials) -> None:
    trials.run(GOOD)
    before = children()
    trials.run(Trial(Grammar("json_schema", '{"not": {}}', "response_format")))

    assert trials.run(GOOD).source
    assert children() == before


def test_a_grammar_that_never_ends_is_killed_and_the_next_one_is_not(trials: GrammarTrials) -> None:
    others = children()
    trials.run(GOOD)
    before, started_s = children() - others, time.monotonic()

    assert "longer than 0.5 s" in trials.run(ENDLESS).reason
    assert time.monotonic() - started_s < 3
    assert not children() & before
    assert trials.run(GOOD).source


def test_a_child_that_dies_of_a_grammar_is_replaced(trials: GrammarTrials) -> None:
    others = children()
    trials.run(GOOD)
    (pid,) = children() - others
    resource.prlimit(pid, resource.RLIMIT_AS, (0, 0))

    assert trials.run(ENDLESS).reason == "it is too complex"
    assert trials.run(GOOD).source


def test_a_child_that_was_killed_while_idle_is_replaced(trials: GrammarTrials) -> None:
    others = children()
    trials.run(GOOD)
    (pid,) = children() - others
    psutil.Process(pid).kill()
    psutil.Process(pid).wait(5)

    assert trials.run(GOOD).source


def test_an_answer_that_was_not_read_is_not_taken_for_the_next(
    trials: GrammarTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.run(GOOD)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(select, "select", Mock(side_effect=KeyboardInterrupt))
        trials.run(Trial(Grammar("regex", "b+", "grammar")))

    assert "a+" in trials.run(GOOD).source


def test_nothing_is_left_behind(trials: GrammarTrials) -> None:
    before = children()
    trials.run(GOOD)
    trials.close()

    assert children() <= before
