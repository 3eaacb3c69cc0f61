"""One vector store as one file, to be taken to another server: its files, texts, chunks and vectors.

    magic | frames, each: length | message (msgpack)

    Head (Document Text* Parents* Chunks* Content*)* End

Everything is written from front to end, and read so: there is no directory, nothing has a path, nothing is compressed.
So neither side holds more than a document, and nothing is larger inside than outside. What is read is a client's: each
message has a schema with bounds, and what a document says is checked against its own text before anybody gets it.
Lengths are little-endian; vectors are fp16, little-endian.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, BinaryIO, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from server.errors import InvalidRequest
from server.rag.documents import (
    MAX_CHUNK_TOKENS,
    MAX_DESCRIPTION_CHARACTERS,
    MAX_EXPIRY_DAYS,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    MAX_NAME_CHARACTERS,
    MAX_PARENT_TOKENS,
    MAX_VALUE_CHARACTERS,
    ChunkDraft,
    ChunkedDocument,
    ChunkingStrategy,
    FileRecord,
    Span,
    StoredDocument,
    StoreRecord,
)
from server.rag.file_name import clean_file_name

VERSION = 1

CONTENT_BYTES = 1 << 20
"""Of a file, in one message."""

_MAGIC = b"HEARTHVS"
_LENGTH = struct.Struct("<I")
_HALF = np.dtype("<f2")
_NORMS = (0.99, 1.01)  # fp16 has three digits

_MAX_FRAME_BYTES = 4 << 20
_TEXT_CHARS = 1 << 18  # of a message: 1 MiB at the most
_ROWS = 128  # of a message, and fewer if their vectors are long
_VECTOR_BYTES = 1 << 20

_MAX_PAGES = 200_000  # of a document
_MAX_CHUNKS = 500_000  # of a document
_MAX_VECTOR_BYTES = 512 << 20  # of a document
_MAX_REPETITION = 4  # overlap is half at the most, so that a character is in two chunks, in three at borders

_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_CHARACTERS)]
_Value = Annotated[str, msgspec.Meta(max_length=MAX_VALUE_CHARACTERS)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_PageNumber = Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]
_Page = _PageNumber | None
_Heading = Annotated[str, msgspec.Meta(max_length=4096)]


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=str.lower):
    """What a frame holds."""


class Head(_Message, frozen=True, kw_only=True):
    """The store. Attributes are `StoreRecord`'s."""

    version: int
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]
    description: Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION_CHARACTERS)]
    metadata: Annotated[dict[_Key, _Value], msgspec.Meta(max_length=MAX_KEYS)]
    expires_after_days: Annotated[int, msgspec.Meta(ge=1, le=MAX_EXPIRY_DAYS)] | None
    embedding_model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    fingerprint: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    chunking: ChunkingStrategy


class Document(_Message, frozen=True, kw_only=True):
    """A document, and its file. Attributes are `DocumentRecord`'s, `FileRecord`'s and `ChunkedDocument`'s."""

    filename: Annotated[str, msgspec.Meta(max_length=1024)]
    purpose: Annotated[str, msgspec.Meta(pattern="^[a-z_-]{1,32}$")]
    num_bytes: _Offset
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    created_at: _Time
    attributes: Annotated[dict[_Key, _Value | int | float | bool], msgspec.Meta(max_length=MAX_KEYS)]
    chunking: ChunkingStrategy
    pages: Annotated[list[tuple[_Offset, _PageNumber]], msgspec.Meta(max_length=_MAX_PAGES)]


class Text(_Message, frozen=True, kw_only=True):
    """More of a document's text."""

    text: str


class _ParentRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    start: _Offset
    end: _Offset
    page: _Page
    heading: _Heading


class _ChunkRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    start: _Offset
    end: _Offset
    page: _Page
    heading: _Heading
    parent: Annotated[int, msgspec.Meta(ge=0, le=_MAX_CHUNKS)]
    num_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]
    context: Annotated[str, msgspec.Meta(max_length=4096)]
    context_key: Annotated[bytes, msgspec.Meta(max_length=64)] | None


class Parents(_Message, frozen=True, kw_only=True):
    """More of a document's parents."""

    rows: list[_ParentRow]


class Chunks(_Message, frozen=True, kw_only=True):
    """More of a document's chunks, and the vectors of these."""

    rows: list[_ChunkRow]
    vectors: bytes


class Content(_Message, frozen=True, kw_only=True):
    """More of a file's bytes."""

    content: Annotated[bytes, msgspec.Meta(max_length=CONTENT_BYTES)]


class End(_Message, frozen=True, kw_only=True):
    """That was all. `sha256` is of all bytes before this frame."""

    num_documents: int
    sha256: bytes


Message = Head | Document | Text | Parents | Chunks | Content | End
M = TypeVar("M", bound=Message)

_decoder = msgspec.msgpack.Decoder(Message)


class StoreFileWriter:
    """Makes the bytes of a file, one call after another; what the methods return belongs together in that order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._num_documents = 0

    def head(self, store: StoreRecord) -> bytes:
        self._digest.update(_MAGIC)
        head = Head(
            version=VERSION,
            name=store.name,
            description=store.description,
            metadata=store.metadata,
            expires_after_days=store.expires_after_days,
            embedding_model=store.embedding_model,
            fingerprint=store.fingerprint,
            dimensions=store.dimensions,
            chunking=store.chunking,
        )
        return _MAGIC + self._frame(head)

    def document(self, document: StoredDocument) -> Iterator[bytes]:
        """All of a document but the bytes of its file, which follow."""
        file, text, chunked = document.file, document.text, document.chunked
        self._num_documents += 1
        yield self._frame(
            Document(
                filename=file.filename,
                purpose=file.purpose,
                num_bytes=file.num_bytes,
                sha256=file.sha256,
                created_at=file.created_at,
                attributes=dict(document.attributes),
                chunking=document.chunking,
                pages=list(chunked.pages),
            )
        )
        for start in range(0, len(text), _TEXT_CHARS):
            yield self._frame(Text(text=text[start : start + _TEXT_CHARS]))
        for start in range(0, len(chunked.parents), _ROWS):
            spans = chunked.parents[start : start + _ROWS]
            yield self._frame(Parents(rows=[_ParentRow(*_place(span)) for span in spans]))
        yield from self._chunks(chunked.chunks, document.vectors)

    def content(self, content: bytes) -> bytes:
        """At most `CONTENT_BYTES` of a document's file."""
        return self._frame(Content(content=content))

    def end(self) -> bytes:
        return self._frame(End(num_documents=self._num_documents, sha256=self._digest.digest()))

    def _chunks(self, chunks: Sequence[ChunkDraft], vectors: npt.NDArray[np.float16]) -> Iterator[bytes]:
        halves = vectors.astype(_HALF, copy=False)
        num_rows = max(1, min(_ROWS, _VECTOR_BYTES // (halves.shape[1] * _HALF.itemsize)))
        for start in range(0, len(chunks), num_rows):
            rows = [
                _ChunkRow(*_place(each.span), each.parent, each.num_tokens, each.context, each.context_key)
                for each in chunks[start : start + num_rows]
            ]
            yield self._frame(Chunks(rows=rows, vectors=halves[start : start + num_rows].tobytes()))

    def _frame(self, message: Message) -> bytes:
        content = msgspec.msgpack.encode(message)
        assert len(content) <= _MAX_FRAME_BYTES, "nobody would read it"
        frame = _LENGTH.pack(len(content)) + content
        self._digest.update(frame)
        return frame


class StoreFileReader:
    """Reads a file from front to end; trusts nothing in it. For threads, one call at a time.

    Attributes:
        head: The store.
    """

    def __init__(self, file: BinaryIO, *, max_text_bytes: int) -> None:
        """Read the head.

        Args:
            max_text_bytes: Of one document; larger ones are refused.

        Raises:
            InvalidRequest: It is no store file, or none that this version reads. All methods raise it.
        """
        self._file = file
        self._max_text_bytes = max_text_bytes
        self._digest = hashlib.sha256(_MAGIC)
        self._num_documents = 0
        if file.read(len(_MAGIC)) != _MAGIC:
            raise InvalidRequest(
                "the file is no exported vector store; send what GET …/export answers, unchanged", param="file"
            )
        self._next = self._read_message()
        head = self._take(Head)
        if head is None:
            raise _broken("it does not begin with its head")
        if head.version != VERSION:
            raise InvalidRequest(
                f"the file has version {head.version} but this server reads {VERSION}; export it with the same version "
                "of Hearth",
                param="file",
            )
        _check_chunking(head.chunking)
        self.head = head

    def documents(self) -> Iterator[StoredDocument]:
        """Yield one document after another. Before going on, read all of its `content`.

        File ids are empty; times are those of the other server.
        """
        while (document := self._take(Document)) is not None:
            self._num_documents += 1
            yield self._document(document)
        end = self._take(End)
        if end is None:
            raise _broken(f"{type(self._next).__name__} is where it does not belong")
        if end.num_documents != self._num_documents:
            raise _broken(f"it has {self._num_documents} documents, expected {end.num_documents}")

    def content(self) -> Iterator[bytes]:
        """Yield the bytes of the file of the document that came last."""
        return (message.content for message in self._all(Content))

    def _document(self, document: Document) -> StoredDocument:
        _check_chunking(document.chunking)
        if not all(math.isfinite(value) for value in document.attributes.values() if isinstance(value, float)):
            raise _broken("an attribute is no number")
        text, parents = self._text(), self._parents()
        rows, vectors = self._chunks()
        chunked = ChunkedDocument(
            parents=tuple(Span(row.start, row.end, row.page, row.heading) for row in parents),
            chunks=tuple(
                ChunkDraft(
                    Span(row.start, row.end, row.page, row.heading),
                    row.parent,
                    row.num_tokens,
                    row.context,
                    row.context_key,
                )
                for row in rows
            ),
            pages=tuple(document.pages),
        )
        _check_places(text, chunked)
        return StoredDocument(
            file=FileRecord(
                id="",
                filename=clean_file_name(document.filename.encode()),
                purpose=document.purpose,
                num_bytes=document.num_bytes,
                sha256=document.sha256,
                created_at=document.created_at,
            ),
            attributes=dict(document.attributes),
            chunking=document.chunking,
            text=text,
            chunked=chunked,
            vectors=vectors,
        )

    def _text(self) -> str:
        parts, num_bytes = [], 0
        for message in self._all(Text):
            num_bytes += len(message.text.encode())
            if num_bytes > self._max_text_bytes:
                raise InvalidRequest(
                    f"a document in it has more than {self._max_text_bytes} bytes of text, the most that this server "
                    "takes; see `rag.parser.max_text_mb`",
                    param="file",
                )
            parts.append(message.text)
        return "".join(parts)

    def _parents(self) -> list[_ParentRow]:
        rows: list[_ParentRow] = []
        for message in self._all(Parents):
            rows += message.rows
            if len(rows) > _MAX_CHUNKS:
                raise _broken(f"a document has more than {_MAX_CHUNKS} parents")
        return rows

    def _chunks(self) -> tuple[list[_ChunkRow], npt.NDArray[np.float16]]:
        rows: list[_ChunkRow] = []
        vectors: list[bytes] = []
        row_bytes = self.head.dimensions * _HALF.itemsize
        for message in self._all(Chunks):
            if len(message.vectors) != len(message.rows) * row_bytes:
                raise _broken(f"vectors are not of {self.head.dimensions} numbers each")
            rows += message.rows
            vectors.append(message.vectors)
            if len(rows) > _MAX_CHUNKS or len(rows) * row_bytes > _MAX_VECTOR_BYTES:
                raise _broken(f"a document has more than {len(rows) - 1} chunks")
        halves = np.frombuffer(b"".join(vectors), _HALF).reshape(len(rows), self.head.dimensions)
        for start in range(0, len(rows), _ROWS):
            norms = np.linalg.norm(halves[start : start + _ROWS].astype(np.float32), axis=1)
            if not np.all((norms > _NORMS[0]) & (norms < _NORMS[1])):  # of NaN, neither is true
                raise _broken("vectors are not of length 1")
        return rows, halves

    # ---- frames

    def _all(self, kind: type[M]) -> Iterator[M]:
        """Take messages for as long as they are of a kind."""
        while (message := self._take(kind)) is not None:
            yield message

    def _take(self, kind: type[M]) -> M | None:
        """Take the next message if it is of a kind."""
        message = self._next
        if not isinstance(message, kind):
            return None
        if not isinstance(message, End):
            self._next = self._read_message()
        elif self._file.read(1):
            raise _broken("it goes on behind its end")
        return message

    def _read_message(self) -> Message:
        head = self._file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise _broken("it ends too early")
        (length,) = _LENGTH.unpack(head)
        if length > _MAX_FRAME_BYTES:
            raise _broken(f"a message has {length} bytes")
        content = self._file.read(length)
        if len(content) < length:
            raise _broken("it ends too early")
        try:
            message: Message = _decoder.decode(content)
        except (msgspec.DecodeError, ValueError, RecursionError) as exc:  # the second: text that is no UTF-8
            raise _broken(str(exc)) from exc
        if isinstance(message, End) and message.sha256 != self._digest.digest():
            raise _broken("its digest does not fit its content")
        self._digest.update(head + content)
        return message


def _check_chunking(chunking: ChunkingStrategy) -> None:
    if not (
        1 <= chunking.max_tokens <= MAX_CHUNK_TOKENS
        and 0 <= 2 * chunking.overlap_tokens <= chunking.max_tokens
        and 0 <= chunking.parent_tokens <= MAX_PARENT_TOKENS
    ):
        raise _broken("a chunking strategy is out of bounds")


def _check_places(text: str, chunked: ChunkedDocument) -> None:
    """See that chunks lie in their parents, and parents in the text, and that they repeat no more than overlap can.

    A text that is stored once but searched in a million chunks would be the bomb that compression cannot be here.
    """
    parents, chunks = chunked.parents, [draft.span for draft in chunked.chunks]
    if not chunks or not all(0 <= span.start < span.end <= len(text) for span in (*parents, *chunks)):
        raise _broken("a chunk or a parent is not inside its text")
    if {draft.parent for draft in chunked.chunks} != set(range(len(parents))):
        raise _broken("chunks and parents do not belong together")
    starts = [*(start for start, _ in chunked.pages), len(text)]
    if not all(before < after for before, after in itertools.pairwise(starts)):
        raise _broken("pages are not in their order")
    for draft in chunked.chunks:
        parent = parents[draft.parent]
        if not parent.start <= draft.span.start < draft.span.end <= parent.end:
            raise _broken("a chunk is not inside its parent")
    if max(_sum_of(chunks), _sum_of(parents)) > _MAX_REPETITION * len(text):
        raise _broken("its chunks repeat one another")


def _place(span: Span) -> tuple[int, int, int | None, str]:
    return span.start, span.end, span.page, span.heading


def _sum_of(spans: Iterable[Span]) -> int:
    return sum(span.end - span.start for span in spans)


def _broken(reason: str) -> InvalidRequest:
    return InvalidRequest(f"the file is not a whole exported vector store: {reason[:200]}", param="file")
