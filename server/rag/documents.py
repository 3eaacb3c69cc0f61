"""What a document is on its way from a file to an answer: parsed, cut into chunks, stored, found.

Offsets count code points of `ParsedDocument.text`, half-open; pages count from 1. Both survive to the citation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from server.rag.terms import ChunkTerms

Attributes = dict[str, str | float | bool]
"""What a client says about a document and filters by: up to 16 keys of up to 64 characters, texts of up to 512."""

MAX_KEYS = 16
MAX_KEY_CHARACTERS = 64
MAX_VALUE_CHARACTERS = 512
"""Of attributes, and of a store's metadata."""

MAX_NAME_CHARACTERS = 256
MAX_DESCRIPTION_CHARACTERS = 512
MAX_EXPIRY_DAYS = 365
MAX_CHUNK_TOKENS = 4096
MAX_PARENT_TOKENS = 16_384

Vectors = npt.NDArray[np.float32]
"""float32 [num_chunks, dimensions], rows of L2 norm 1."""

BlockKind = Literal["heading", "paragraph", "list", "table", "code"]

DocumentStatus = Literal["in_progress", "completed", "cancelled", "failed"]

ReindexStatus = Literal["in_progress", "completed", "cancelled", "failed"]

FailureCode = Literal["server_error", "unsupported_file", "invalid_file"]


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of text that a reader sees as one thing. Blocks are in order and do not overlap.

    Attributes:
        level: Of a heading: 1 is the highest; 0 of everything else.
        page: Where it begins; None for formats without pages.
    """

    kind: BlockKind
    start: int
    end: int
    page: int | None = None
    level: int = 0


@dataclass(frozen=True)
class ParsedDocument:
    """What a parser made of a file. `text` is what offsets count in, what is stored and what clients get back."""

    text: str
    blocks: tuple[Block, ...]
    media_type: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a document's text.

    Attributes:
        page: Page on which it begins; None for formats without pages.
        heading: The headings above it, outermost first, joined by " > "; empty if there are none.
    """

    start: int
    end: int
    page: int | None = None
    heading: str = ""


@dataclass(frozen=True, slots=True)
class ChunkDraft:
    """A chunk before it is stored: what is embedded and searched.

    Attributes:
        parent: Position of its parent in `ChunkedDocument.parents`.
        num_tokens: Of its text, by the embedding model's own tokenizer, special tokens left out.
        context: What a chat model says of where it stands in its document; empty if nothing.
        context_key: Names what that was written from; None if nothing was.
        columns: The row that names the columns of the table which the chunk begins inside of; empty if there is none.
    """

    span: Span
    parent: int
    num_tokens: int
    context: str = ""
    context_key: bytes | None = None
    columns: str = ""


@dataclass(frozen=True)
class ChunkedDocument:
    """Chunks in order; each lies inside its parent, the larger stretch that is shown to a chat model instead.

    Attributes:
        pages: Where pages begin, in order, and their numbers; empty for formats without pages.
    """

    parents: tuple[Span, ...]
    chunks: tuple[ChunkDraft, ...]
    pages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChunkingStrategy:
    """How documents are cut.

    Attributes:
        kind: `static` is OpenAI's, windows of tokens that ignore structure; `auto` is static with 800 and 400;
            `structural` (ours) keeps to headings, paragraphs, sentences, tables and code.
        overlap_tokens: Tokens at the end of a chunk that the next one repeats.
        parent_tokens: Of `structural`: most tokens of a parent; of the others the parent is the chunk.
        context: A chat model tells of each chunk where it stands; see `contexts.py`.
    """

    kind: Literal["auto", "static", "structural"] = "auto"
    max_tokens: int = 800
    overlap_tokens: int = 400
    parent_tokens: int = 0
    context: bool = False


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """An uploaded file. Times are Unix seconds."""

    id: str
    filename: str
    purpose: str
    num_bytes: int
    sha256: str
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class StatusCounts:
    """Documents by status, as OpenAI's `file_counts`."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled


@dataclass(frozen=True, kw_only=True)
class StoreRecord:
    """A vector store. Times are Unix seconds.

    Attributes:
        embedding_model: Id of the model whose vectors it holds.
        fingerprint: Of that model (weights, pooling, prompts, dimensions) when the store was made.
        generation: Grows with every change of its chunks; what an index has caught up with is told by it.
        edition: Names the model whose vectors it holds; another one after each reindex.
        expires_after_days: Days after `last_active_at`; None: never.
        is_expired: That time has come and its chunks were dropped; it is listed with its documents, and never revives.
    """

    id: str
    name: str
    description: str
    metadata: dict[str, str]
    created_at: int
    last_active_at: int
    expires_after_days: int | None
    embedding_model: str
    fingerprint: str
    dimensions: int
    chunking: ChunkingStrategy
    generation: int
    usage_bytes: int
    counts: StatusCounts
    is_expired: bool = False
    edition: int = 0


class StoreChanges(TypedDict, total=False):
    """What may be changed of a store; what is left out stays."""

    name: str
    metadata: Mapping[str, str]
    expires_after_days: int | None


@dataclass(frozen=True, kw_only=True)
class ReindexRecord:
    """The newest reindex of a vector store: all its chunks embedded anew, with another model perhaps.

    Attributes:
        tenant: Whose store it is.
        edition: That the store gets by it; no other reindex has the same.
        embedding_model, fingerprint, dimensions: Of the model that it embeds with.
        failure: Why it failed; None otherwise.
        eta_s, waiting_for: Of one that runs now; as in `DocumentRecord`.
    """

    tenant: str
    store_id: str
    edition: int
    status: ReindexStatus
    embedding_model: str
    fingerprint: str
    dimensions: int
    created_at: int
    num_chunks: int
    num_chunks_done: int
    failure: str | None = None
    eta_s: float | None = None
    waiting_for: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """Files that were put into a vector store together. `created_at` is in Unix seconds."""

    id: str
    store_id: str
    created_at: int
    counts: StatusCounts


@dataclass(frozen=True, kw_only=True)
class DocumentRecord:
    """A file in a vector store: the job that puts it there, and what came of it.

    Attributes:
        id: Row number; chunks refer to it.
        batch_id: The file batch it came with, if any.
        num_chunks, num_chunks_done: How far embedding is; 0 of 0 until the file is cut. While a job runs only it knows.
        num_attempts: How often a job has taken it up since it last got on. When a server starts, that is how many
            processes have died meanwhile.
        failure: Why it failed; None otherwise.
        eta_s: Of a job that runs now: when it will be done if it goes on like this, as far as that can be told.
        waiting_for: Of a job that runs now: why it does not get on, e.g. that the model is loading.
    """

    id: int
    store_id: str
    file_id: str
    filename: str
    batch_id: str | None
    status: DocumentStatus
    failure: tuple[FailureCode, str] | None
    attributes: Attributes
    chunking: ChunkingStrategy
    created_at: int
    usage_bytes: int
    num_chunks: int
    num_chunks_done: int
    num_attempts: int = 0
    eta_s: float | None = None
    waiting_for: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A stored chunk, with what an answer needs to cite it. `context` is no part of the document, and never shown.
    `columns` are as in `ChunkDraft`; `attributes` are the document's.
    """

    id: int
    document_id: int
    file_id: str
    filename: str
    ordinal: int
    text: str
    span: Span
    parent_id: int
    num_tokens: int
    context: str = ""
    columns: str = ""
    attributes: Attributes = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A stored parent: the stretch around one or more chunks."""

    id: int
    document_id: int
    text: str
    span: Span


@dataclass(frozen=True, kw_only=True)
class ChunkChange:
    """What one transaction did to a store's chunks, for the index that follows it.

    Attributes:
        added_ids: int64 [n], ascending; `vectors` and `terms` are theirs, float32 [n, dimensions] and [n].
        removed_ids: int64 [m].
    """

    store_id: str
    generation: int
    added_ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))
    terms: Sequence[ChunkTerms] = ()
    removed_ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class StoredDocument:
    """All that a store holds of a document, to be taken to another store.

    Attributes:
        file: What is known of its file; the bytes are elsewhere.
        vectors: float16 [num_chunks, dimensions], of L2 norm 1.
    """

    file: FileRecord
    attributes: Attributes
    chunking: ChunkingStrategy
    text: str
    chunked: ChunkedDocument
    vectors: npt.NDArray[np.float16]


@dataclass(frozen=True)
class Expired:
    """What has outlived its time: files that are gone, what that changed in stores, and stores that are empty now."""

    file_ids: tuple[str, ...]
    store_ids: tuple[str, ...]
    changes: tuple[ChunkChange, ...]
