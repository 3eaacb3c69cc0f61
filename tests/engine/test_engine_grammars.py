"""Sequences with a grammar in the engine: what they say is what it wants, and nobody else notices them.

The model says nonsense: one token stands out, all others are equally likely. So masks alone make sense of it.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from server.engine import token_mask
from server.engine.engine import Engine
from server.engine.grammar_compiler import GrammarCompiler
from server.engine.kv_cache import KVCache
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.errors import InvalidRequest
from server.types import Failed, Finished, Grammar, SamplingParams
from tests.fakes.backend import FakeBackend
from tests.fakes.vocabulary import CONTROL, END, IS_END, PIECES, text_of, tokenize

TO_THE_POINT = {END: 4.0, **{token_id: 4.0 for mark in '"}],:' for token_id in tokenize(mark)}}
"""Likely enough that most texts come to an end."""


class Rig:
    """An engine, and what it said."""

    def __init__(self, *, num_cells: int = 4096) -> None:
        backend = FakeBackend(num_cells=num_cells, max_sequences=8, max_batch_tokens=256, vocab_size=len(PIECES))
        cost = StepCost()
        scheduler = Scheduler(KVCache(backend), SchedulerOptions(max_step_tokens=256, max_running=8), cost)
        self.engine = Engine(backend, scheduler, Sampler(IS_END), cost, is_end=lambda token_id: token_id == END)
        self.tokens: dict[str, list[int]] = {}
        self.endings: dict[str, Finished | Failed] = {}

    def add(self, name: str, *, prompt: list[int], sampling: SamplingParams, **more: Any) -> None:
        self.tokens[name] = []
        self.engine.add(Sequence(name, prompt, sampling, **{"max_tokens": 200, **more}))

    def run(self) -> Rig:
        while len(self.endings) < len(self.tokens):
            for name, token_ids, ending in self.engine.step():
                self.tokens[name] += token_ids
                if ending:
                    self.endings[name] = ending
        self.engine.check_integrity()
        return self

    def text(self, name: str) -> str:
        return text_of([token_id for token_id in self.tokens[name] if token_id != END])

    def reason(self, name: str) -> str:
        ending = self.endings[name]
        return ending.reason if isinstance(ending, Finished) else ending.code


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value), "response_format")


def regex(text: str) -> Grammar:
    return Grammar("regex", text, "grammar")


def seeded(seed: int = 0, **more: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.0, "logit_bias": TO_THE_POINT, "seed": seed, **more})


# ---- every answer that ends by itself is valid

_names = st.sampled_from(["a", "b", "name", "é", "x y", 'q"'])
_values = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text("ab1é", max_size=3))
_others = [
    {"type": "boolean"},
    {"type": "null"},
    {"type": "number", "exclusiveMinimum": -1.5, "maximum": 2},
    {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 70},
    {"type": ["string", "null"], "maxLength": 4},
    {"type": "string", "pattern": "^[a-c]{1,3}$"},
    {"type": "string", "pattern": "b", "maxLength": 6},
    {"type": "string", "format": "date"},
    {"type": "object", "minProperties": 1, "additionalProperties": {"type": "boolean"}},
    {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "null"}},
    {"type": "object", "patternProperties": {"^a": {"type": "null"}}, "additionalProperties": False},
]


def _strings(low: int, more: int) -> Any:
    return {"type": "string", "minLength": low, "maxLength": low + more}


def _integers(low: int, more: int) -> Any:
    return {"type": "integer", "minimum": low, "maximum": low + more}


def _arrays(items: Any, low: int, more: int) -> Any:
    return {"type": "array", "items": items, "minItems": low, "maxItems": low + more}


def _objects(properties: dict[str, Any], wanted: list[str], others: Any) -> Any:
    required = [name for name in wanted if name in properties]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": others}


def _inside(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names, few = st.lists(_names, unique=True), st.integers(0, 2)
    properties = st.dictionaries(_names, inner, max_size=3)
    return st.one_of(
        st.builds(_objects, properties, names, st.one_of(st.just(False), inner)),
        st.builds(_arrays, inner, few, few),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3)),
    )


_leaves = st.one_of(
    st.builds(_strings, st.integers(0, 3), st.integers(0, 5)),
    st.builds(_integers, st.integers(-50, 50), st.integers(0, 99)),
    st.sampled_from(_others),
    st.builds(lambda values: {"enum": values}, st.lists(_values, min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, st.lists(_values, max_size=2)),
)
_schemas = st.recursive(_leaves, _inside, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(_schemas, min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_an_answer_that_ends_by_itself_is_valid(grammars: GrammarCompiler, wanted: list[Any], seed: int) -> None:
    rig = Rig()
    for index, each in enumerate(wanted):
        try:
            mask = grammars.mask(schema(each))
        except InvalidRequest as exc:
            event(f"refused: {exc.message[:80]}")
        else:
            rig.add(str(index), mask=mask, prompt=[5, index + 2], sampling=seeded(seed + index))
    rig.run()

    for name in rig.endings:
        event(rig.reason(name))
        assert rig.reason(name) in ("stop", "length")
        if rig.reason(name) == "stop":
            jsonschema.Draft202012Validator(wanted[int(name)]).validate(json.loads(rig.text(name)))


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"repeat_penalty": 1.3}]
)
def test_every_way_to_pick_keeps_to_the_grammar(grammars: GrammarCompiler, sampling: dict[str, Any]) -> None:
    rig = Rig()
    for index in range(8):
        mask = grammars.mask(regex("(ab|10){2,9}c"))
        rig.add(str(index), mask=mask, prompt=[5, index + 2], sampling=seeded(index, **sampling))
    rig.run()

    assert {rig.reason(name) for name in rig.tokens} == {"stop"}
    assert all(set(rig.text(name)) <= set("ab10c") and rig.text(name).endswith("c") for name in rig.tokens)


def test_max_tokens_may_cut_an_answer(grammars: GrammarCompiler) -> None:
    rig = Rig()
    rig.add("a", mask=grammars.mask(regex("a{50}")), prompt=[5], sampling=seeded(), max_tokens=7)

    assert rig.run().reason("a") == "length"
    assert rig.text("a") == "a" * 7


def test_control_tokens_are_never_written(grammars: GrammarCompiler) -> None:
    rig = Rig()
    for index in range(4):
        mask = grammars.mask(regex("(?s:.){20}"))
        rig.add(str(index), mask=mask, prompt=[5, index + 2], sampling=seeded(index, logit_bias={CONTROL: 100.0}))
    rig.run()

    assert not any(CONTROL in token_ids for token_ids in rig.tokens.values())


# ---- neighbours


@settings(max_examples=30, deadline=None)
@given(
    company=st.lists(st.sampled_from(["[ab]{5,30}", "(name|10)+", "é日本{3}x*"]), max_size=3),
    prompts=st.lists(st.lists(st.integers(2, 60), min_size=1, max_size=12), min_size=1, max_size=4),
    num_cells=st.integers(120, 300),
    seed=st.integers(0, 10**6),
)
def test_neighbours_say_what_they_say_without_company(
    grammars: GrammarCompiler, company: list[str], prompts: list[list[int]], num_cells: int, seed: int
) -> None:
    """Where cells are few and sequences are preempted, too, and where others are drafted for."""

    def run(*, with_company: bool) -> Rig:
        rig = Rig(num_cells=num_cells)
        for index, prompt in enumerate(prompts):
            sampling = seeded(seed) if index % 2 else SamplingParams(temperature=0)
            rig.add(str(index), prompt=prompt, sampling=sampling, max_tokens=40)
        for index, each in enumerate(company if with_company else []):
            mask = grammars.mask(regex(each))
            rig.add(f"company {index}", mask=mask, prompt=[3, index + 2], sampling=seeded(index), max_tokens=40)
        return rig.run()

    alone, beside = run(with_company=False), run(with_company=True)

    assert {name: beside.tokens[name] for name in alone.tokens} == alone.tokens


@settings(max_examples=20, deadline=None)
@given(num_cells=st.integers(70, 120), seed=st.integers(0, 10**6))
def test_preemption_does_not_change_what_a_grammar_gives(grammars: GrammarCompiler, num_cells: int, seed: int) -> None:
    def run(cells: int) -> dict[str, list[int]]:
        rig = Rig(num_cells=cells)
        for index in range(4):
            mask = grammars.mask(Grammar("json_object", "", "response_format"))
            rig.add(str(index), mask=mask, prompt=[4, index + 2], sampling=seeded(seed + index), max_tokens=50)
        return rig.run().tokens

    assert run(num_cells) == run(4096)


def test_a_grammar_that_fails_ends_its_own_sequence_only(
    grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_mask, "BURST_S", -1.0)
    failing = grammars.mask(regex("[ab]+"))
    monkeypatch.undo()
    rig = Rig()
    rig.add("bad", mask=failing, prompt=[5], sampling=seeded())
    rig.add("good", mask=grammars.mask(regex("(ab)+c")), prompt=[6], sampling=seeded())
    rig.add("free", prompt=[7], sampling=SamplingParams(temperature=0, ignore_eos=True), max_tokens=9)
    rig.run()

    ending = rig.endings["bad"]
    assert isinstance(ending, Failed)
    assert (ending.code, ending.param) == ("invalid_value", "grammar")
    assert (rig.reason("good"), rig.reason("free")) == ("stop", "length")


def test_an_aborted_sequence_takes_its_mask_along(grammars: GrammarCompiler) -> None:
    rig = Rig()
    rig.add("gone", mask=grammars.mask(regex("a{100}")), prompt=[5], sampling=seeded())
    rig.engine.step()
    rig.engine.abort("gone")
    del rig.tokens["gone"]
    rig.add("next", mask=grammars.mask(regex("b{3}")), prompt=[6], sampling=seeded())

    assert rig.run().text("next") == "bbb"


def test_a_mask_that_is_late_is_waited_for(grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake model takes no time at all: every mask comes after the logits that it is for."""
    advance = token_mask.TokenMask.advance

    def dawdle(mask: token_mask.TokenMask) -> None:
        for _ in range(100):
            np.sort(np.arange(1000)[::-1])
        advance(mask)

    monkeypatch.setattr(token_mask.TokenMask, "advance", dawdle)
    rig = Rig()
    rig.add("a", mask=grammars.mask(regex("name{9}")), prompt=[5], sampling=seeded())

    assert rig.run().text("a") == "nam" + "e" * 9
