from __future__ import annotations

import pytest

from server.rag.documents import Block
from server.rag.loaders import document_builder
from server.rag.loaders.document_builder import DocumentBuilder, whole_document
from server.rag.parsing import ParseFailed, ParserLimits
from tests.fakes.parsed_documents import check_blocks, outline


def test_blocks_are_told_apart_by_a_blank_line() -> None:
    builder = DocumentBuilder(ParserLimits())
    builder.add_heading(" Top\n of it ", 2, page=3)
    builder.add("paragraph", "\r\n words \r\n", page=3)
    builder.add("paragraph", " \n")

    document = builder.build("text/plain", title="a\nb")

    assert (document.text, document.title) == ("Top of it\n\n words", "a b")
    assert document.blocks == (Block("heading", 0, 9, 3, 2), Block("paragraph", 11, 17, 3))


def test_items_of_a_list_are_one_block_on_each_page() -> None:
    builder = DocumentBuilder(ParserLimits())
    for page, text in [(1, "a"), (1, "b"), (2, "c")]:
        builder.add("list", text, page=page)

    assert outline(builder.build("text/plain")) == [("list", "a\nb"), ("list", "c")]


def test_text_is_limited_while_it_grows() -> None:
    builder = DocumentBuilder(ParserLimits(max_text_bytes=10))
    builder.add("paragraph", "ééééé")

    with pytest.raises(ParseFailed, match="of text"):
        builder.add("paragraph", "x")


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(ParseFailed, match="no text"):
        DocumentBuilder(ParserLimits()).build("text/plain")


def test_beyond_so_many_blocks_the_rest_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_builder, "MAX_BLOCKS", 3)
    blocks = [Block("paragraph", 2 * place, 2 * place + 1) for place in range(10)]

    document = whole_document("a " * 10, blocks, "text/plain", ParserLimits())

    check_blocks(document)
    assert len(document.blocks) == 3 and document.blocks[-1].end == 19
