"""Exported stores as files: what was written is read, and nothing else is."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.rag.documents import ChunkDraft, ChunkedDocument, ChunkingStrategy, FileRecord, Span, StoredDocument
from server.rag.store_file_reader import StoreFileReader
from server.rag.store_file_writer import StoreFileWriter
from tests.fakes.stores import STORE

MAX_TEXT_BYTES = 1 << 20
MAGIC_BYTES = 8

DOCUMENT = StoredDocument(
    file=FileRecord(
        id="", filename="notes/ü.txt", purpose="assistants", num_bytes=3, sha256="ab" * 32, created_at=1_700_000_000
    ),
    attributes={"year": 1999, "share": 0.5, "draft": True, "lang": "de"},
    chunking=ChunkingStrategy(kind="static", max_tokens=300, overlap_tokens=20),
    text="Hello, wörld",
    chunked=ChunkedDocument(
        parents=(Span(0, 12, 1, "A > B"),),
        chunks=(
            ChunkDraft(Span(0, 6, 1, "A > B"), 0, 2, "a greeting", b"key"),
            ChunkDraft(Span(4, 12, None, ""), 0, 2, columns="Greeting | Name"),
        ),
        pages=((0, 1), (7, 2)),
    ),
    vectors=np.array([[1, 0], [0, 1]], np.float16),
)


def written(*documents: tuple[StoredDocument, bytes]) -> bytes:
    writer = StoreFileWriter()
    parts = [writer.head(STORE)]
    for document, content in documents:
        parts += [*writer.document(document), writer.content(content)]
    return b"".join([*parts, writer.end()])


def read(content: bytes) -> list[tuple[StoredDocument, bytes]]:
    reader = StoreFileReader(io.BytesIO(content), max_text_bytes=MAX_TEXT_BYTES)
    return [(document, b"".join(reader.content())) for document in reader.documents()]


def frames(content: bytes) -> list[dict[str, Any]]:
    messages, place = [], MAGIC_BYTES
    while place < len(content):
        (length,) = struct.unpack_from("<I", content, place)
        messages.append(msgspec.msgpack.decode(content[place + 4 : place + 4 + length]))
        place += 4 + length
    return messages


def joined(messages: Sequence[dict[str, Any]]) -> bytes:
    """A file of these messages, with the digest that belongs to it."""
    content = b"HEARTHVS"
    for message in messages:
        if message["type"] == "end":
            message = {**message, "sha256": hashlib.sha256(content).digest()}  # noqa: PLW2901
        frame = msgspec.msgpack.encode(message)
        content += struct.pack("<I", len(frame)) + frame
    return content


def assert_same(document: StoredDocument, other: StoredDocument) -> None:
    np.testing.assert_array_equal(document.vectors, other.vectors)
    for field in dataclasses.fields(StoredDocument):
        assert field.name == "vectors" or getattr(document, field.name) == getattr(other, field.name)


# ---- round trips


def test_a_store_comes_back_as_it_was() -> None:
    content = written((DOCUMENT, b"abc"), (DOCUMENT, b""))

    (first, abc), (second, nothing) = read(content)

    assert_same(first, DOCUMENT)
    assert_same(second, DOCUMENT)
    assert (abc, nothing) == (b"abc", b"")
    head = StoreFileReader(io.BytesIO(content), max_text_bytes=1).head
    assert (head.name, head.embedding_model, head.fingerprint, head.dimensions) == ("notes", "embedder", "f", 2)
    assert head.chunking == STORE.chunking


def test_a_store_without_documents_is_one_too() -> None:
    assert read(written()) == []


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@st.composite
def documents(draw: st.DrawFn) -> StoredDocument:
    text = draw(TEXT)
    cuts = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=5))})
    page, heading = st.none() | st.integers(1, 999), st.text(max_size=20).filter(_is_text)
    parents = tuple(Span(a, b, draw(page), draw(heading)) for a, b in itertools.pairwise(cuts))
    chunks = tuple(
        ChunkDraft(
            Span(span.start, span.end, draw(page), draw(heading)), place, draw(st.integers(0, 99)), draw(heading)
        )
        for place, span in enumerate(parents)
    )
    angles = np.array(draw(st.lists(st.floats(0, 7), min_size=len(chunks), max_size=len(chunks))))
    words = TEXT.map(lambda word: word.replace("\0", "0"))
    values = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | words
    return dataclasses.replace(
        DOCUMENT,
        attributes=draw(st.dictionaries(words.map(lambda key: key[:64]), values, max_size=3)),
        text=text,
        chunked=ChunkedDocument(parents, chunks),
        vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16),
    )


def _is_text(text: str) -> bool:
    return text.encode("utf-8", "ignore").decode() == text


@given(documents(), st.binary(max_size=100))
@settings(max_examples=50, deadline=None)
def test_every_document_comes_back_as_it_was(document: StoredDocument, content: bytes) -> None:
    [(found, found_content)] = read(written((document, content)))

    assert_same(found, document)
    assert found_content == content


def test_long_texts_and_many_chunks_are_in_many_messages() -> None:
    text = "wörd " * 200_000
    spans = [Span(start, start + 1000) for start in range(0, len(text), 1000)]
    document = dataclasses.replace(
        DOCUMENT,
        text=text,
        chunked=ChunkedDocument(tuple(spans), tuple(ChunkDraft(span, n, 1) for n, span in enumerate(spans))),
        vectors=np.tile(np.array([1, 0], np.float16), (len(spans), 1)),
    )
    writer = StoreFileWriter()
    parts = [writer.head(STORE), *writer.document(document), writer.end()]

    reader = StoreFileReader(io.BytesIO(b"".join(parts)), max_text_bytes=2 << 20)
    [found] = reader.documents()

    assert_same(found, document)
    assert max(map(len, parts)) < 2 << 20


# ---- hostile ones

Change = Callable[[list[dict[str, Any]]], object]


def of(kind: str, **changes: Any) -> Change:
    """Change the first message of a kind."""

    def change(messages: list[dict[str, Any]]) -> None:
        next(each for each in messages if each["type"] == kind).update(changes)

    return change


def row(kind: str, place: int, value: object) -> Change:
    """Change a value in the first row of a message."""

    def change(messages: list[dict[str, Any]]) -> None:
        next(each for each in messages if each["type"] == kind)["rows"][0][place] = value

    return change


def without(kind: str) -> Change:
    return lambda messages: messages.remove(next(each for each in messages if each["type"] == kind))


def twice(kind: str) -> Change:
    def change(messages: list[dict[str, Any]]) -> None:
        messages.insert(1, next(each for each in messages if each["type"] == kind))

    return change


def vectors(*numbers: float) -> bytes:
    return np.array(numbers, "<f2").tobytes()


def repeating(messages: list[dict[str, Any]]) -> None:
    """Ten chunks, each of the whole text: a few bytes each here, and all of the text in the search index."""
    found = next(each for each in messages if each["type"] == "chunks")
    found["rows"] = [[0, 12, None, "", 0, 2, "", None]] * 10
    found["vectors"] = vectors(*[1, 0] * 10)


HOSTILE: dict[str, Change] = {
    "another version": of("head", version=2),
    "a name of a megabyte": of("head", name="x" * 1_000_000),
    "a number for a name": of("head", name=7),
    "metadata that are no texts": of("head", metadata={"a": 1}),
    "too many metadata": of("head", metadata={str(n): "x" for n in range(17)}),
    "metadata with a NUL": of("head", metadata={"a": "x\0y"}),
    "an unknown field": of("head", tenant="eve"),
    "no dimensions": of("head", dimensions=0),
    "dimensions beyond all models": of("head", dimensions=1 << 40),
    "other dimensions than the vectors": of("head", dimensions=3),
    "chunks of no token": of("head", chunking={"kind": "static", "max_tokens": 0}),
    "more overlap than chunk": of("document", chunking={"kind": "static", "max_tokens": 100, "overlap_tokens": 90}),
    "a strategy that nobody knows": of("document", chunking={"kind": "magic"}),
    "attributes in lists": of("document", attributes={"a": [1]}),
    "an attribute that is no number": of("document", attributes={"a": float("nan")}),
    "an attribute with a NUL": of("document", attributes={"a": "x\0y"}),
    "an attribute that ends in a NUL": of("document", attributes={"a": "x\0\n"}),
    "an attribute whose name has a NUL": of("document", attributes={"a\0": 1}),
    "a digest that is none": of("document", sha256="../../etc/passwd"),
    "a file of negative length": of("document", num_bytes=-1),
    "a nameless file": of("document", filename="../.."),
    "a purpose with a quote": of("document", purpose="a' OR 1=1"),
    "no text": without("text"),
    "empty text": of("text", text=""),
    "a text that is a number": of("text", text=5),
    "no parents": without("parents"),
    "no chunks": without("chunks"),
    "a parent that nobody has": lambda messages: next(m for m in messages if m["type"] == "parents")["rows"].append(
        [0, 1, None, ""]
    ),
    "a parent beyond the text": row("parents", 1, 13),
    "a parent that ends before it begins": row("parents", 0, 12),
    "a chunk beyond the text": row("chunks", 1, 13),
    "a chunk at a negative place": row("chunks", 0, -1),
    "a chunk of another parent": row("chunks", 4, 1),
    "a chunk without end": row("chunks", 1, 0),
    "pages beyond the text": of("document", pages=[[0, 1], [12, 2]]),
    "pages out of order": of("document", pages=[[5, 1], [0, 2]]),
    "page 0": row("chunks", 2, 0),
    "a heading of a megabyte": row("chunks", 3, "x" * 1_000_000),
    "a context of a megabyte": row("chunks", 6, "x" * 1_000_000),
    "chunks that repeat the text": repeating,
    "a vector too few": of("chunks", vectors=vectors(1, 0)),
    "half a number": of("chunks", vectors=vectors(1, 0, 0, 1)[:-1]),
    "vectors that are too long": of("chunks", vectors=vectors(3, 0, 0, 1)),
    "vectors of nothing": of("chunks", vectors=vectors(0, 0, 0, 1)),
    "vectors that are no numbers": of("chunks", vectors=vectors(float("nan"), 0, 0, 1)),
    "vectors without end": of("chunks", vectors=vectors(float("inf"), 0, 0, 1)),
    "two heads": twice("head"),
    "content before its document": twice("content"),
    "an unknown message": lambda messages: messages.insert(1, {"type": "script"}),
    "no head": without("head"),
    "no end": without("end"),
    "more documents than it says": of("end", num_documents=0),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_is_wrong_is_refused(change: Change) -> None:
    messages = frames(written((DOCUMENT, b"abc")))
    change(messages)

    with pytest.raises(InvalidRequest) as refused:
        read(joined(messages))

    assert refused.value.param == "file"
    assert len(refused.value.message) < 400


def test_the_table_above_begins_with_what_is_right() -> None:
    assert len(read(joined(frames(written((DOCUMENT, b"abc")))))) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip",
        b"SQLite format 3\x00" + bytes(100),
        b"HEARTHVS",
        b"HEARTHVS" + b"\xff\xff\xff\xff" + bytes(100),
        b"HEARTHVS" + struct.pack("<I", 40) + b"\xdf\xff\xff\xff\xff" + bytes(35),  # a map of four billion
        b"HEARTHVS" + struct.pack("<I", 200_000) + b"\x91" * 200_000,  # lists in lists
        written() + b"x",
        written() + written(),
    ],
    ids=["empty", "zip", "sqlite", "magic", "huge frame", "huge map", "deep", "more", "two"],
)
def test_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(content)


def test_a_flipped_bit_or_a_cut_is_noticed_wherever_it_is() -> None:
    content = written((DOCUMENT, b"abc"))
    for place in range(len(content)):
        flipped = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        for broken in (flipped, content[:place]):
            with pytest.raises(InvalidRequest):
                read(broken)


def test_a_text_that_is_too_long_for_this_server_is_refused() -> None:
    reader = StoreFileReader(io.BytesIO(written((DOCUMENT, b""))), max_text_bytes=12)  # the ö has two

    with pytest.raises(InvalidRequest, match=r"more than 12 bytes of text.*rag.parser.max_text_mb"):
        list(reader.documents())


def test_headings_contexts_and_columns_of_a_document_are_bounded_together() -> None:
    """Each is short, but there may be half a million: here, 5 bytes twice, 10, and 15."""

    def document(max_text_bytes: int) -> StoredDocument:
        content = io.BytesIO(written((DOCUMENT, b"")))
        return next(StoreFileReader(content, max_text_bytes=max_text_bytes).documents())

    assert_same(document(35), DOCUMENT)
    with pytest.raises(InvalidRequest, match=r"more than 34 bytes of headings, contexts.*rag.parser.max_text_mb"):
        document(34)


def test_attributes_of_several_lines_are_read() -> None:
    document = dataclasses.replace(DOCUMENT, attributes={"a\n": "\nb\n\n"})

    [(found, _)] = read(written((document, b"")))

    assert found.attributes == {"a\n": "\nb\n\n"}


def test_a_name_is_made_harmless() -> None:
    messages = frames(written((DOCUMENT, b"abc")))
    of("document", filename="../../etc/pass\x00wd")(messages)

    [(document, _)] = read(joined(messages))

    assert document.file.filename == "etc/passwd"
