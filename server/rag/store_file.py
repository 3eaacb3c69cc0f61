"""One vector store as one file, to be taken to another server: its files, texts, chunks and vectors.

    magic | frames, each: length | message (msgpack)

    Head (Document Text* Parents* Chunks* Content*)* End

Everything is written from front to end, and read so: there is no directory, nothing has a path, nothing is compressed.
So neither side holds more than a document, and nothing is larger inside than outside. What is read is a client's: each
message has a schema with bounds, and `store_file_reader.py` checks what a document says against its own text.
Lengths are little-endian; vectors are fp16, little-endian.
"""

from __future__ import annotations

import struct
from typing import Annotated

import msgspec

from server.rag.documents import (
    MAX_DESCRIPTION_CHARACTERS,
    MAX_EXPIRY_DAYS,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    MAX_NAME_CHARACTERS,
    MAX_VALUE_CHARACTERS,
    ChunkingStrategy,
)

VERSION = 1
MAGIC = b"HEARTHVS"
LENGTH = struct.Struct("<I")

MAX_FRAME_BYTES = 4 << 20

CONTENT_BYTES = 1 << 20
"""Of a file, in one message."""

MAX_CHUNKS = 500_000
"""Of a document."""

_MAX_PAGES = 200_000  # of a document

_WITHOUT_NUL = r"^[^\x00]*$"  # as the API wants attributes: to SQLite's JSON a text ends there

_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_CHARACTERS, pattern=_WITHOUT_NUL)]
_Value = Annotated[str, msgspec.Meta(max_length=MAX_VALUE_CHARACTERS, pattern=_WITHOUT_NUL)]
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


class ParentRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    start: _Offset
    end: _Offset
    page: _Page
    heading: _Heading


class ChunkRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    start: _Offset
    end: _Offset
    page: _Page
    heading: _Heading
    parent: Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNKS)]
    num_tokens: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]
    context: Annotated[str, msgspec.Meta(max_length=4096)]
    context_key: Annotated[bytes, msgspec.Meta(max_length=64)] | None
    columns: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class Parents(_Message, frozen=True, kw_only=True):
    """More of a document's parents."""

    rows: list[ParentRow]


class Chunks(_Message, frozen=True, kw_only=True):
    """More of a document's chunks, and the vectors of these."""

    rows: list[ChunkRow]
    vectors: bytes


class Content(_Message, frozen=True, kw_only=True):
    """More of a file's bytes."""

    content: Annotated[bytes, msgspec.Meta(max_length=CONTENT_BYTES)]


class End(_Message, frozen=True, kw_only=True):
    """That was all. `sha256` is of all bytes before this frame."""

    num_documents: int
    sha256: bytes


Message = Head | Document | Text | Parents | Chunks | Content | End
