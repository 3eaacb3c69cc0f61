from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.rag.attribution import attribute
from server.rag.citations import CitationFilter
from server.rag.documents import Span
from server.rag.prompt import Source
from server.rag.quotes import QuoteFinder
from server.rag.support import find_statements

TEXTS = [
    "Paris is the capital of France. It has 2,102,650 inhabitants and was founded by the Parisii.",
    "The Rhine rises in Switzerland and flows through Germany into the North Sea.",
]


def finders(*texts: str) -> list[QuoteFinder]:
    return [
        QuoteFinder(Source(document_id=1, file_id="f", filename="a", span=Span(0, len(text)), text=text))
        for text in texts
    ]


def attributed(answer: str, *texts: str) -> list[tuple[str, tuple[int, ...]]]:
    citations = CitationFilter(len(texts or TEXTS))
    text = citations.feed(answer) + citations.finish()
    found = attribute(text, citations.citations, finders(*(texts or TEXTS)))
    return [(each.sentence, each.statement.numbers) for each in found]


def test_a_sentence_is_attributed_to_the_source_that_says_it() -> None:
    answer = "Glad you ask! The river Rhine rises in Switzerland. The city has 2102650 inhabitants, founded by Parisii."

    assert attributed(answer) == [
        ("The river Rhine rises in Switzerland.", (2,)),
        ("The city has 2102650 inhabitants, founded by Parisii.", (1,)),
    ]


def test_what_the_model_cites_is_left_to_it() -> None:
    assert attributed("The Rhine rises in Switzerland, flows through Germany [1].") == []


def test_a_wrong_number_is_not_attributed() -> None:
    assert attributed("The city has 2,102,651 inhabitants, founded by the Parisii.") == []


def test_words_from_several_sentences_are_not_enough() -> None:
    assert attributed("The capital Paris was founded: inhabitants flow into Germany.") == []


def test_short_sentences_are_left_alone() -> None:
    assert attributed("Paris is the capital.") == []


def test_of_equal_sources_the_first_is_named() -> None:
    assert attributed("The Rhine rises in Switzerland, flows through Germany.", TEXTS[1], TEXTS[1])[0][1] == (1,)


def test_without_sources_nothing_is_attributed() -> None:
    assert list(attribute("The Rhine rises in Switzerland, flows through Germany.", (), ())) == []


def test_its_mark_stands_at_the_end_of_the_sentence_and_has_no_width() -> None:
    answer = "Well. The Rhine rises in Switzerland, flows through Germany. Yes."

    [found] = attribute(answer, (), finders(*TEXTS))

    [mark] = found.statement.marks
    assert mark.start == mark.end == found.statement.end == answer.index(" Yes")
    assert found.is_supported


@given(st.text("aR. [12]\n", max_size=60).map(lambda text: text.replace("R", "Rhine rises Switzerland Germany")))
def test_no_sentence_is_both_cited_and_attributed(answer: str) -> None:
    citations = CitationFilter(2)
    text = citations.feed(answer) + citations.finish()

    cited = {each.start for each in find_statements(text, citations.citations)}
    added = {each.statement.start for each in attribute(text, citations.citations, finders(*TEXTS))}

    assert not cited & added
