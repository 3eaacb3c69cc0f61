"""Reads the file that a store was exported to, and trusts nothing in it: `store_file.py` says what it looks like."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeVar

import msgspec
import numpy as np

from server.errors import InvalidRequest
from server.rag.documents import (
    MAX_CHUNK_TOKENS,
    MAX_PARENT_TOKENS,
    ChunkDraft,
    ChunkedDocument,
    ChunkingStrategy,
    FileRecord,
    Span,
    StoredDocument,
)
from server.rag.file_name import clean_file_name
from server.rag.halves import HALF, Halves, num_odd
from server.rag.store_file import (
    LENGTH,
    MAGIC,
    MAX_CHUNKS,
    MAX_FRAME_BYTES,
    VERSION,
    ChunkRow,
    Chunks,
    Content,
    Document,
    End,
    Head,
    Message,
    ParentRow,
    Parents,
    Text,
)

_MAX_VECTOR_BYTES = 512 << 20  # of a document
_MAX_REPETITION = 4  # overlap is half at the most, so that a character is in two chunks, in three at borders

M = TypeVar("M", bound=Message)

_decoder = msgspec.msgpack.Decoder(Message)


class StoreFileReader:
    """Reads a file from front to end; trusts nothing in it. For threads, one call at a time.

    Attributes:
        head: The store.
    """

    def __init__(self, file: BinaryIO, *, max_text_bytes: int) -> None:
        """Read the head.

        Args:
            max_text_bytes: Of one document, and again of what its chunks and parents bring besides; larger ones are
                refused.

        Raises:
            InvalidRequest: It is no store file, or none that this version reads. All methods raise it.
        """
        self._file = file
        self._max_text_bytes = max_text_bytes
        self._digest = hashlib.sha256(MAGIC)
        self._num_documents = 0
        if file.read(len(MAGIC)) != MAGIC:
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
        text, words = self._text(), self._room("headings, contexts and column names")
        parents = self._parents(words)
        rows, vectors = self._chunks(words)
        chunked = ChunkedDocument(
            parents=tuple(Span(row.start, row.end, row.page, row.heading) for row in parents),
            chunks=tuple(
                ChunkDraft(
                    Span(row.start, row.end, row.page, row.heading),
                    row.parent,
                    row.num_tokens,
                    row.context,
                    row.context_key,
                    row.columns,
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
        parts, room = [], self._room("text")
        for message in self._all(Text):
            room.take([message.text])
            parts.append(message.text)
        return "".join(parts)

    def _room(self, what: str) -> _Room:
        return _Room(what, self._max_text_bytes)

    def _parents(self, words: _Room) -> list[ParentRow]:
        rows: list[ParentRow] = []
        for message in self._all(Parents):
            words.take(row.heading for row in message.rows)
            rows += message.rows
            if len(rows) > MAX_CHUNKS:
                raise _broken(f"a document has more than {MAX_CHUNKS} parents")
        return rows

    def _chunks(self, words: _Room) -> tuple[list[ChunkRow], Halves]:
        rows: list[ChunkRow] = []
        vectors: list[bytes] = []
        row_bytes = self.head.dimensions * HALF.itemsize
        for message in self._all(Chunks):
            if len(message.vectors) != len(message.rows) * row_bytes:
                raise _broken(f"vectors are not of {self.head.dimensions} numbers each")
            words.take(text for row in message.rows for text in (row.heading, row.context, row.columns))
            rows += message.rows
            vectors.append(message.vectors)
            if len(rows) > MAX_CHUNKS or len(rows) * row_bytes > _MAX_VECTOR_BYTES:
                raise _broken(f"a document has more than {len(rows) - 1} chunks")
        halves = np.frombuffer(b"".join(vectors), HALF).reshape(len(rows), self.head.dimensions)
        if num_odd(halves):
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
        head = self._file.read(LENGTH.size)
        if len(head) < LENGTH.size:
            raise _broken("it ends too early")
        (length,) = LENGTH.unpack(head)
        if length > MAX_FRAME_BYTES:
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


class _Room:
    """Counts the bytes of what a document has of something, which is held in memory until all of it is read."""

    def __init__(self, what: str, max_bytes: int) -> None:
        self._what = what
        self._max_bytes = max_bytes
        self._num_bytes = 0

    def take(self, texts: Iterable[str]) -> None:
        self._num_bytes += sum(len(text.encode()) for text in texts)
        if self._num_bytes > self._max_bytes:
            raise InvalidRequest(
                f"a document in it has more than {self._max_bytes} bytes of {self._what}, the most that this server "
                "takes; see `rag.parser.max_text_mb`",
                param="file",
            )


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


def _sum_of(spans: Iterable[Span]) -> int:
    return sum(span.end - span.start for span in spans)


def _broken(reason: str) -> InvalidRequest:
    return InvalidRequest(f"the file is not a whole exported vector store: {reason[:200]}", param="file")
