"""Answers about files and vector stores: OpenAI's, with what it has no field for in `x`."""

from __future__ import annotations

from typing import Literal

from server.api.openapi.body import Body, Count, JsonObject, UnixTime

DocumentStatus = Literal["in_progress", "completed", "failed", "cancelled"]
AttributeValue = str | float | bool


class FileObject(Body):
    id: str
    object: Literal["file"]
    bytes: Count
    created_at: UnixTime
    expires_at: UnixTime | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None
    x: JsonObject


class Page(Body):
    """The next one begins `after` `last_id`."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileList(Page):
    data: list[FileObject]


class FileCounts(Body):
    in_progress: Count
    completed: Count
    failed: Count
    cancelled: Count
    total: Count


class ToldExpiry(Body):
    anchor: Literal["last_active_at"]
    days: Count


class VectorStore(Body):
    id: str
    object: Literal["vector_store"]
    created_at: UnixTime
    name: str
    description: str
    usage_bytes: Count
    file_counts: FileCounts
    status: Literal["in_progress", "completed", "expired"]
    expires_after: ToldExpiry | None
    expires_at: UnixTime | None
    last_active_at: UnixTime
    metadata: dict[str, str]
    x: JsonObject


class VectorStoreList(Page):
    data: list[VectorStore]


class LastError(Body):
    code: str
    message: str


class ToldChunking(Body):
    """`structural` as `other`, since clients of OpenAI know `static` and `other` only."""

    type: Literal["static", "other"]


class StoreFile(Body):
    id: str
    object: Literal["vector_store.file"]
    created_at: UnixTime
    usage_bytes: Count
    vector_store_id: str
    status: DocumentStatus
    last_error: LastError | None
    chunking_strategy: ToldChunking
    attributes: dict[str, AttributeValue]
    x: JsonObject


class StoreFileList(Page):
    data: list[StoreFile]


class StoreFileText(Body):
    type: Literal["text"]
    text: str


class StoreFileContent(Body):
    object: Literal["vector_store.file_content.page"]
    data: list[StoreFileText]
    has_more: Literal[False]
    next_page: None


class FileBatch(Body):
    id: str
    object: Literal["vector_store.files_batch"]
    created_at: UnixTime
    vector_store_id: str
    status: DocumentStatus
    file_counts: FileCounts


class SearchResult(Body):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, AttributeValue]
    content: list[StoreFileText]
    x: JsonObject


class SearchResults(Body):
    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchResult]
    has_more: Literal[False]
    next_page: None
    x: JsonObject


class MeasuredConfiguration(Body):
    name: str
    stages: JsonObject
    gain_over_parts: JsonObject
    gain_over_first: JsonObject | None
    rerank_failures: list[str]


class JudgedQuery(Body):
    id: str
    text: str
    relevant: list[str]


class StoreEvaluation(Body):
    object: Literal["vector_store.evaluation"]
    vector_store_id: str
    judged: Literal["file", "chunk"]
    num_queries: Count
    unknown_items: list[str]
    configurations: list[MeasuredConfiguration]
    queries: list[JudgedQuery]


class StoreReindexing(Body):
    object: Literal["vector_store.reindex"]
    vector_store_id: str
    created_at: UnixTime
    status: DocumentStatus
    last_error: LastError | None
    embedding_model: str
    dimensions: Count
    num_chunks: Count
    num_chunks_done: Count
    eta_s: float | None
    waiting_for: str | None
