from __future__ import annotations

import pytest

from benchmarks.load import Answer
from benchmarks.prompts import Prompts
from benchmarks.rag_bars import BARS, OTHERS
from benchmarks.rag_loads import (
    RANKERS,
    TITLES,
    asked_body,
    grounding_figures,
    questions,
    rendered_body,
    sharing,
    shuffled,
)


def prompt(sources: str, question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": sources}, {"role": "user", "content": question}]


def answer(
    *, num_prompt_tokens: int = 100, num_cached_tokens: int = 0, num_sources: int = 0, error: str = ""
) -> Answer:
    counted = {"num_prompt_tokens": num_prompt_tokens, "num_cached_tokens": num_cached_tokens}
    return Answer({}, due_s=0.0, done_s=2.0, num_sources=num_sources, finding_s=0.5, error=error, **counted)


def test_all_servers_are_asked_in_the_same_order() -> None:
    asked = shuffled([asked_body(text, "vs_1", "none") for text in questions()])
    rendered = shuffled([rendered_body(prompt("sources", text)) for text in questions()])

    for seed in (1, 2):
        bodies = zip(asked(Prompts(seed), 16), rendered(Prompts(seed), 16), strict=True)
        assert all(mine["messages"][-1] == other["messages"][-1] for mine, other in bodies)  # type: ignore[index]


def test_a_question_and_its_prompt_differ_in_what_they_rest_on_alone() -> None:
    asked, rendered = asked_body("why?", "vs_1", "none"), rendered_body(prompt("sources", "why?"))

    assert {key for key in asked if asked[key] != rendered.get(key)} == {"messages", "tools"}
    assert asked.keys() - rendered.keys() == {"tools"}


def test_no_question_comes_twice() -> None:
    assert len(set(questions())) == len(questions()) == 40


def test_what_was_cached_and_what_finding_took_count_in_whole_answers() -> None:
    figures = grounding_figures(
        [answer(num_cached_tokens=60, num_sources=3), answer(num_sources=1), answer(error="status 500", num_sources=9)]
    )

    assert figures["cached_share"] == pytest.approx(0.3)
    assert (figures["grounded_share"], figures["mean_sources"], figures["finding_share"]) == (1, 2, 0.25)


def test_a_server_that_finds_nothing_has_no_figures_of_that() -> None:
    assert grounding_figures([answer(num_cached_tokens=25)]) == {"cached_share": 0.25}


def test_sharing_tells_what_a_perfect_cache_could_spare() -> None:
    told = sharing([prompt("aaaaaaaa", "x"), prompt("aaaaaaaa", "y"), prompt("aaaabbbb", "z")])

    assert (told["questions"], told["source_sets"]) == (3, 2)
    assert told["shareable_share"] == pytest.approx((9 + 4) / 30, abs=1e-3)  # with the line end before the question


def test_every_bar_belongs_to_a_load_and_to_somebody() -> None:
    assert {bar.load for bar in BARS} == set(TITLES) == set(RANKERS)
    assert {bar.against for bar in BARS} == {*OTHERS, None}
