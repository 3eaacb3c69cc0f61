from __future__ import annotations

from server.rag.documents import Span
from server.rag.prompt import Source
from server.rag.quotes import MAX_QUOTE_CHARS, Quote, QuoteFinder

TEXT = "Bread is old. Knead the dough for ten minutes. Then let it rest for an hour in a warm place."


def finder(text: str = TEXT, *, start: int = 0, core: Span | None = None) -> QuoteFinder:
    span = Span(start, start + len(text), 7, "Bread")
    return QuoteFinder(Source(document_id=1, file_id="f", filename="a", span=span, text=text, core=core))


def test_the_sentence_that_says_it_is_quoted() -> None:
    assert finder().find("You should knead dough for ten minutes") == Quote(
        Span(14, 46, 7, "Bread"), "Knead the dough for ten minutes."
    )


def test_offsets_count_in_the_document() -> None:
    quote = finder(start=1000).find("let it rest")

    assert quote is not None
    assert quote.span == Span(1000 + TEXT.index("Then"), 1000 + len(TEXT), 7, "Bread")


def test_inside_of_the_core_its_page_holds() -> None:
    core = Span(14, 46, 8, "Bread > Dough")

    inside, outside = (finder(core=core).find(words) for words in ("knead it", "let it rest"))

    assert inside is not None and outside is not None
    assert (inside.span.page, inside.span.heading) == (8, "Bread > Dough")
    assert (outside.span.page, outside.span.heading) == (7, "Bread")


def test_nothing_is_quoted_where_no_word_is_shared() -> None:
    assert finder().find("Der Rhein") is None
    assert finder("").find("dough") is None


def test_a_long_sentence_is_quoted_by_its_beginning() -> None:
    quote = finder("dough " * 1000).find("dough")

    assert quote is not None
    assert quote.text == ("dough " * 1000)[:MAX_QUOTE_CHARS]
    assert quote.span.end - quote.span.start == MAX_QUOTE_CHARS
