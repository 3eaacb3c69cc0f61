"""The bodies and queries of vector stores: OpenAI's, with `structural` chunking and `explain` besides."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from server.api.schemas.files import Order
from server.api.schemas.wire import MAX_FIELDS, ModelName, TextInteger, WireModel, invalid
from server.rag.documents import (
    MAX_CHUNK_TOKENS,
    MAX_DESCRIPTION_CHARACTERS,
    MAX_EXPIRY_DAYS,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    MAX_NAME_CHARACTERS,
    MAX_PARENT_TOKENS,
    MAX_VALUE_CHARACTERS,
    Attributes,
    ChunkingStrategy,
    DocumentStatus,
)
from server.rag.filters import parse_filter
from server.rag.paging import MAX_LIMIT
from server.rag.search import Ranker, SearchOptions

MAX_QUERY_CHARACTERS = 16_384
MAX_QUERIES = 16
MAX_BATCH = 2000
MAX_RESULTS = 50

MIN_CHUNK_TOKENS = 100
MIN_STRUCTURAL_TOKENS = 32


_NUL = "\0"
"""To SQLite's JSON a text ends there, so that filters would take it for a shorter one."""


def _check_keys(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid("it should be an object", code="invalid_type")
    if len(value) > MAX_KEYS:
        raise invalid(f"expected at most {MAX_KEYS} keys, but there are {len(value)}")
    for key in value:
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS:
            raise invalid(f"expected keys of 1 to {MAX_KEY_CHARACTERS} characters, but {key[:80]!r} has {len(key)}")
        if _NUL in key or (isinstance(value[key], str) and _NUL in value[key]):
            raise invalid(f"expected texts without NUL characters, but there is one in {key[:80]!r} or its value")
    return value


def _parse_metadata(value: Any) -> dict[str, str]:
    for key, each in _check_keys(value).items():
        if not isinstance(each, str):
            raise invalid(f"expected strings, but the value of {key!r} is none", code="invalid_type")
        _check_text(key, each)
    return dict(value)


def _parse_attributes(value: Any) -> Attributes:
    for key, each in _check_keys(value).items():
        if not isinstance(each, str | int | float):  # a bool is an int
            raise invalid(
                f"expected strings, numbers or booleans, but the value of {key!r} is none of them", code="invalid_type"
            )
        if isinstance(each, str):
            _check_text(key, each)
    return dict(value)


def _check_text(key: str, text: str) -> None:
    if len(text) > MAX_VALUE_CHARACTERS:
        raise invalid(f"expected at most {MAX_VALUE_CHARACTERS} characters, but the value of {key!r} has {len(text)}")


def _parse_queries(value: Any) -> list[str]:
    queries = [value] if isinstance(value, str) else value
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise invalid("expected a string or a list of strings", code="invalid_type")
    if not 1 <= len(queries) <= MAX_QUERIES:
        raise invalid(f"expected 1 to {MAX_QUERIES} texts")
    if not all(query.strip() and len(query) <= MAX_QUERY_CHARACTERS for query in queries):
        raise invalid(f"expected texts of 1 to {MAX_QUERY_CHARACTERS} characters that are not blank")
    return queries


Metadata = Annotated[dict[str, str], PlainValidator(_parse_metadata, json_schema_input_type=dict[str, str])]
AttributesField = Annotated[
    Attributes, PlainValidator(_parse_attributes, json_schema_input_type=dict[str, str | float | bool])
]
Id = Annotated[str, Field(min_length=1, max_length=128)]
StoreName = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)]


class StoreExpiry(WireModel):
    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=MAX_EXPIRY_DAYS)]


class AutoChunking(WireModel):
    type: Literal["auto"]

    def strategy(self) -> ChunkingStrategy:
        return ChunkingStrategy()


def _check_overlap(value: int, info: ValidationInfo) -> int:
    most: int | None = info.data.get("max_chunk_size_tokens")
    if most is not None and 2 * value > most:
        raise invalid(f"expected at most half of max_chunk_size_tokens, which is {most}")
    return value


def _check_parent(value: int, info: ValidationInfo) -> int:
    least: int | None = info.data.get("max_chunk_size_tokens")
    if least is not None and 0 < value < least:
        raise invalid(f"expected 0, for none, or at least max_chunk_size_tokens, which is {least}")
    return value


Overlap = Annotated[int, Field(ge=0), AfterValidator(_check_overlap)]


class StaticSizes(WireModel):
    max_chunk_size_tokens: Annotated[int, Field(ge=MIN_CHUNK_TOKENS, le=MAX_CHUNK_TOKENS)]
    chunk_overlap_tokens: Overlap


class StaticChunking(WireModel):
    type: Literal["static"]
    static: StaticSizes

    def strategy(self) -> ChunkingStrategy:
        sizes = self.static
        return ChunkingStrategy(
            kind="static", max_tokens=sizes.max_chunk_size_tokens, overlap_tokens=sizes.chunk_overlap_tokens
        )


class StructuralChunking(WireModel):
    """Extension: cut where the document does."""

    type: Literal["structural"]
    max_chunk_size_tokens: Annotated[int, Field(ge=MIN_STRUCTURAL_TOKENS, le=MAX_CHUNK_TOKENS)]
    chunk_overlap_tokens: Overlap = 0
    parent_tokens: Annotated[int, Field(ge=0, le=MAX_PARENT_TOKENS), AfterValidator(_check_parent)] = 0
    context: bool = False

    def strategy(self) -> ChunkingStrategy:
        return ChunkingStrategy(
            kind="structural",
            max_tokens=self.max_chunk_size_tokens,
            overlap_tokens=self.chunk_overlap_tokens,
            parent_tokens=self.parent_tokens,
            context=self.context,
        )


Chunking = Annotated[AutoChunking | StaticChunking | StructuralChunking, Field(discriminator="type")]


class StoreCreate(WireModel):
    """`POST /v1/vector_stores`."""

    name: StoreName = ""
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARACTERS)] = ""
    file_ids: Annotated[list[Id], Field(max_length=MAX_BATCH, default_factory=list)]
    chunking_strategy: Chunking | None = None
    expires_after: StoreExpiry | None = None
    metadata: Annotated[Metadata, Field(default_factory=dict)]


class StoreReindex(WireModel):
    """`POST /v1/vector_stores/{id}/reindex`."""

    embedding_model: ModelName | None = None
    """id or alias of an embedding model; default: that of new vector stores"""


class StoreImportForm(WireModel):
    """`POST /v1/vector_stores/import`, besides the file."""

    name: StoreName | None = None


class _Changes(WireModel):
    """Of an object that exists: `null` empties a field, and only what is left out stays as it is."""

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MAX_FIELDS:
            raise PydanticCustomError("too_many_fields", "no object of this API has so many fields")
        return data


class StoreUpdate(_Changes):
    """`POST /v1/vector_stores/{id}`."""

    name: StoreName | None = None
    expires_after: StoreExpiry | None = None
    metadata: Metadata | None = None


class DocumentCreate(WireModel):
    """`POST /v1/vector_stores/{id}/files`, and an item of `files` in a batch."""

    file_id: Id
    attributes: Annotated[AttributesField, Field(default_factory=dict)]
    chunking_strategy: Chunking | None = None


class DocumentUpdate(_Changes):
    """`POST /v1/vector_stores/{id}/files/{file_id}`."""

    attributes: AttributesField | None


def _check_file_ids(value: list[str] | None, info: ValidationInfo) -> list[str] | None:
    has_files = info.data.get("files") is not None
    if value is None and not has_files and "files" in info.data:
        raise invalid("", code="missing_required_parameter")
    if value is not None and has_files:
        raise invalid("the request has files too; send one of them")
    return value


def _check_for_all(value: Any, info: ValidationInfo) -> Any:
    if value is not None and info.data.get("files") is not None:
        raise invalid("it goes with file_ids; say it for each of files")
    return value


class BatchCreate(WireModel):
    """`POST /v1/vector_stores/{id}/file_batches`: `file_ids`, with what holds for all of them, or `files`."""

    # In this order, because each check looks at what came before.
    files: Annotated[list[DocumentCreate] | None, Field(min_length=1, max_length=MAX_BATCH)] = None
    file_ids: Annotated[
        list[Id] | None,
        Field(min_length=1, max_length=MAX_BATCH, validate_default=True),
        AfterValidator(_check_file_ids),
    ] = None
    attributes: Annotated[AttributesField | None, AfterValidator(_check_for_all)] = None
    chunking_strategy: Annotated[Chunking | None, AfterValidator(_check_for_all)] = None

    def documents(self) -> list[DocumentCreate]:
        if self.files is not None:
            return self.files
        return [
            DocumentCreate.model_construct(
                file_id=file_id, attributes=self.attributes or {}, chunking_strategy=self.chunking_strategy
            )
            for file_id in self.file_ids or []
        ]


class PageQuery(WireModel):
    """The query of every list below `/v1/vector_stores`."""

    limit: Annotated[TextInteger, Field(ge=1, le=MAX_LIMIT)] = 20
    order: Order = "desc"
    after: str | None = None
    before: str | None = None


class DocumentListQuery(PageQuery):
    """`GET /v1/vector_stores/{id}/files`."""

    filter: DocumentStatus | None = None


def _check_weights(value: float, info: ValidationInfo) -> float:
    if value == 0 == info.data.get("embedding_weight"):
        raise invalid("expected more than 0, as embedding_weight is 0")
    return value


class HybridSearch(WireModel):
    """How much each arm counts, in proportion."""

    embedding_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    text_weight: Annotated[float, Field(ge=0, le=1000), AfterValidator(_check_weights)] = 1.0


class RankingOptions(WireModel):
    ranker: Ranker = "auto"
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    hybrid_search: HybridSearch | None = None


class StoreSearch(WireModel):
    """`POST /v1/vector_stores/{id}/search`."""

    query: Annotated[list[str], PlainValidator(_parse_queries, json_schema_input_type=str | list[str])]
    """a string, or up to 16, of up to 16,384 characters; the results of several are merged; required"""
    max_num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10
    """1 to 50, default 10"""
    filters: Any = None
    """see [filters](#filters)"""
    ranking_options: RankingOptions = RankingOptions()
    """`ranker`: `none` for no reranker, else `auto` (default) or `default-2024-11-15`; `score_threshold`: 0 to 1;
    `hybrid_search`: `embedding_weight` and `text_weight`, which count in proportion; with 0 one is not searched"""
    explain: bool = False
    """extension: tell what happened on the way"""
    rewrite_query: bool = False
    """`true` lets the chat model (`rag.chat_model`) make up to three queries of each; they are searched along with it,
    never in its place. `search_query` in the answer tells them all. Where the model does not answer within
    `rag.rewrite_timeout_s`, or writes nothing of use, the query is all there is; without a chat model the request is
    refused"""

    def options(self) -> SearchOptions:
        """Raises InvalidRequest where the filter is wrong."""
        options = search_options(self.ranking_options, filters=self.filters)
        return replace(options, max_results=self.max_num_results, explain=self.explain)


def search_options(ranking: RankingOptions, *, filters: Any, filters_param: str = "filters") -> SearchOptions:
    """How to rank and what to filter by. Raises InvalidRequest where the filter is wrong."""
    weights = ranking.hybrid_search or HybridSearch()
    return SearchOptions(
        filter=None if filters is None else parse_filter(filters, param=filters_param),
        ranker=ranking.ranker,
        score_threshold=ranking.score_threshold,
        embedding_weight=weights.embedding_weight,
        text_weight=weights.text_weight,
    )
