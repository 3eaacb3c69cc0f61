from __future__ import annotations

from collections.abc import Sequence

from server.rag.citations import CitationFilter
from server.rag.support import Support, check_support, find_statements

SOURCES = [
    "Paris is the capital of France. It has 2,102,650 inhabitants and was founded by the Parisii.",
    "The Rhine rises in Switzerland and flows into the North Sea.",
]


def statements(answer: str) -> list[tuple[str, tuple[int, ...]]]:
    citations = CitationFilter(9)
    text = citations.feed(answer) + citations.finish()
    return [(text[each.start : each.end], each.numbers) for each in find_statements(text, citations.citations)]


async def check(answer: str, best: float | None = None) -> list[Support]:
    citations = CitationFilter(len(SOURCES))
    text = citations.feed(answer) + citations.finish()

    async def score(sentence: str, _sources: Sequence[str]) -> float | None:
        assert "[" not in sentence
        return best

    return await check_support(text, citations.citations, SOURCES, score if best is not None else None)


def test_a_mark_belongs_to_the_sentence_around_it() -> None:
    assert statements("First. Second [1] one [2]. Third.") == [("Second [1] one [2].", (1, 2))]


def test_a_mark_behind_the_full_stop_belongs_to_the_sentence_before() -> None:
    assert statements("First. [1] Second.[2][1] Third.") == [("First.", (1,)), ("Second.", (2, 1))]


def test_a_mark_that_begins_a_line_belongs_to_the_sentence_behind() -> None:
    assert statements("Sources.\n[1] says so.\n\n[2] [3] say no.") == [("says so.", (1,)), ("say no.", (2, 3))]


def test_marks_without_a_sentence_are_no_statement() -> None:
    assert statements("[1] [2]") == []


async def test_the_words_of_a_source_support_a_sentence() -> None:
    [found] = await check("The capital of France is Paris [1].")

    assert found.is_supported
    assert found.overlap == 1.0


async def test_another_source_does_not() -> None:
    [found] = await check("The capital of France is Paris [2].")

    assert (found.is_supported, found.overlap) == (False, 0.0)


async def test_sources_support_a_sentence_together() -> None:
    [found] = await check("Paris is in France, and the Rhine in Switzerland [1][2].")

    assert found.is_supported


async def test_other_forms_of_a_word_count() -> None:
    [found] = await check("The founding and capitals: France's inhabitant [1].")

    assert found.is_supported


async def test_a_number_must_stand_in_a_source() -> None:
    right, wrong = await check("Paris has 2.102.650 inhabitants [1]. Paris has 2,102,651 inhabitants [1].")

    assert right.is_supported
    assert not wrong.is_supported


async def test_a_cross_encoder_decides_where_words_do_not() -> None:
    answer = "Die größte Stadt liegt an der Seine [1][2]."

    assert [(each.score, each.is_supported) for each in await check(answer, 0.9)] == [(0.9, True)]
    assert [(each.score, each.is_supported) for each in await check(answer, 0.2)] == [(0.2, False)]
    assert [(each.score, each.is_supported) for each in await check(answer)] == [(None, False)]


async def test_the_cross_encoder_is_asked_about_the_sources_that_are_named() -> None:
    asked: list[tuple[str, Sequence[str]]] = []

    async def score(sentence: str, sources: Sequence[str]) -> None:
        asked.append((sentence, sources))

    citations = CitationFilter(len(SOURCES))
    answer = citations.feed("Eine Stadt [2]. Ein Fluss [1][2].") + citations.finish()
    await check_support(answer, citations.citations, SOURCES, score)

    assert asked == [("Eine Stadt .", SOURCES[1:]), ("Ein Fluss .", SOURCES)]


async def test_a_statement_knows_its_marks_and_its_words() -> None:
    [found] = await check("First. Paris  [1] is in France [2].")

    assert (found.sentence, found.statement.numbers) == ("Paris is in France .", (1, 2))
    assert [(mark.start, mark.numbers) for mark in found.statement.marks] == [(14, (1,)), (31, (2,))]


async def test_a_cross_encoder_does_not_excuse_a_wrong_number() -> None:
    [found] = await check("Die Stadt hat 99 Einwohner [1].", 0.9)

    assert (found.score, found.is_supported) == (None, False)


async def test_the_cross_encoder_is_not_asked_where_words_suffice() -> None:
    [found] = await check("The capital of France is Paris [1].", 0.0)

    assert found.score is None
