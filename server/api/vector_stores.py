"""`/v1/vector_stores`: stores, the documents in them, batches of documents, and search."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.query import list_body, read_query
from server.api.schemas.vector_stores import (
    BatchCreate,
    Chunking,
    DocumentCreate,
    DocumentListQuery,
    DocumentUpdate,
    PageQuery,
    StoreCreate,
    StoreSearch,
    StoreUpdate,
)
from server.api.search_results import search_body
from server.api.tenant import tenant_of
from server.api.text_page import TextPage
from server.rag.documents import (
    BatchRecord,
    ChunkingStrategy,
    DocumentRecord,
    StatusCounts,
    StoreChanges,
    StoreRecord,
)
from server.rag.paging import Page
from server.services.vector_stores import VectorStoreService

DAY_S = 86_400

POLL_AFTER_MS = "200"
"""How soon the openai SDK shall ask again while something is in progress; by itself it waits for a second."""


class VectorStoreEndpoint:
    def __init__(self, service: VectorStoreService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, StoreCreate)
        store = await self._service.create(
            tenant_of(request),
            name=wanted.name,
            description=wanted.description,
            metadata=wanted.metadata,
            expires_after_days=wanted.expires_after.days if wanted.expires_after else None,
            chunking=_strategy(wanted.chunking_strategy),
            file_ids=wanted.file_ids,
        )
        return JsonResponse(store_body(store))

    async def list(self, request: Request) -> Response:
        stores, has_more = await self._service.list(tenant_of(request), _page(read_query(request, PageQuery)))
        return JsonResponse(list_body([store_body(store) for store in stores], has_more=has_more))

    async def get(self, request: Request) -> Response:
        return JsonResponse(store_body(await self._service.get(tenant_of(request), _store_id(request))))

    async def update(self, request: Request) -> Response:
        wanted = await self._body.read(request, StoreUpdate)
        changes: StoreChanges = {}
        if "name" in wanted.model_fields_set:
            changes["name"] = wanted.name or ""
        if "metadata" in wanted.model_fields_set:
            changes["metadata"] = wanted.metadata or {}
        if "expires_after" in wanted.model_fields_set:
            changes["expires_after_days"] = wanted.expires_after.days if wanted.expires_after else None
        return JsonResponse(store_body(await self._service.update(tenant_of(request), _store_id(request), **changes)))

    async def delete(self, request: Request) -> Response:
        store_id = _store_id(request)
        await self._service.delete(tenant_of(request), store_id)
        return JsonResponse({"id": store_id, "object": "vector_store.deleted", "deleted": True})

    async def search(self, request: Request) -> Response:
        wanted = await self._body.read(request, StoreSearch)
        work = self._service.search(
            tenant_of(request),
            _store_id(request),
            wanted.query,
            wanted.options(),
            rewrites_queries=wanted.rewrite_query,
        )
        return JsonResponse(search_body(await run_while_connected(request.receive, work)))


class DocumentEndpoint:
    """Files in a vector store, one by one."""

    def __init__(self, service: VectorStoreService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, DocumentCreate)
        document = await self._service.add_file(
            tenant_of(request),
            _store_id(request),
            wanted.file_id,
            attributes=wanted.attributes,
            chunking=_strategy(wanted.chunking_strategy),
        )
        return _polled(document_body(document), document.status)

    async def list(self, request: Request) -> Response:
        wanted = read_query(request, DocumentListQuery)
        return await list_documents(self._service, request, wanted)

    async def get(self, request: Request) -> Response:
        document = await self._service.document(tenant_of(request), _store_id(request), _file_id(request))
        return _polled(document_body(document), document.status)

    async def update(self, request: Request) -> Response:
        wanted = await self._body.read(request, DocumentUpdate)
        document = await self._service.set_attributes(
            tenant_of(request), _store_id(request), _file_id(request), wanted.attributes or {}
        )
        return JsonResponse(document_body(document))

    async def content(self, request: Request) -> Response:
        text = await self._service.document_text(tenant_of(request), _store_id(request), _file_id(request))
        return TextPage(text)

    async def delete(self, request: Request) -> Response:
        file_id = _file_id(request)
        await self._service.remove_document(tenant_of(request), _store_id(request), file_id)
        return JsonResponse({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})


class BatchEndpoint:
    """Files that are put into a vector store together."""

    def __init__(self, service: VectorStoreService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, BatchCreate)
        files = [(each.file_id, each.attributes, _strategy(each.chunking_strategy)) for each in wanted.documents()]
        return _batch_response(await self._service.create_batch(tenant_of(request), _store_id(request), files))

    async def get(self, request: Request) -> Response:
        return _batch_response(await self._service.batch(tenant_of(request), _store_id(request), _batch_id(request)))

    async def cancel(self, request: Request) -> Response:
        batch = await self._service.cancel_batch(tenant_of(request), _store_id(request), _batch_id(request))
        return _batch_response(batch)

    async def list_files(self, request: Request) -> Response:
        wanted = read_query(request, DocumentListQuery)
        return await list_documents(self._service, request, wanted, batch_id=_batch_id(request))


async def list_documents(
    service: VectorStoreService, request: Request, wanted: DocumentListQuery, *, batch_id: str | None = None
) -> Response:
    """One page of a store's documents, or of those that came with a batch."""
    documents, has_more = await service.documents(
        tenant_of(request), _store_id(request), status=wanted.filter, batch_id=batch_id, page=_page(wanted)
    )
    return JsonResponse(list_body([document_body(document) for document in documents], has_more=has_more))


def store_body(store: StoreRecord) -> dict[str, Any]:
    """OpenAI's vector store; `x` holds what it has no field for."""
    days = store.expires_after_days
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "name": store.name,
        "description": store.description,
        "usage_bytes": store.usage_bytes,
        "file_counts": _counts_body(store.counts),
        "status": _store_status(store),
        "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
        "expires_at": None if days is None else store.last_active_at + days * DAY_S,
        "last_active_at": store.last_active_at,
        "metadata": store.metadata,
        "x": {
            "embedding_model": store.embedding_model,
            "dimensions": store.dimensions,
            "chunking_strategy": _chunking_body(store.chunking),
        },
    }


def document_body(document: DocumentRecord) -> dict[str, Any]:
    """OpenAI's vector store file; `x` holds what it has no field for."""
    failure = document.failure
    return {
        "id": document.file_id,
        "object": "vector_store.file",
        "created_at": document.created_at,
        "usage_bytes": document.usage_bytes,
        "vector_store_id": document.store_id,
        "status": document.status,
        "last_error": None if failure is None else {"code": failure[0], "message": failure[1]},
        "chunking_strategy": _chunking_body(document.chunking),
        "attributes": document.attributes,
        "x": {
            "filename": document.filename,
            "batch_id": document.batch_id,
            "num_chunks": document.num_chunks,
            "num_chunks_done": document.num_chunks_done,
            "eta_s": document.eta_s,
            "waiting_for": document.waiting_for,
        },
    }


def batch_body(batch: BatchRecord) -> dict[str, Any]:
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": batch.created_at,
        "vector_store_id": batch.store_id,
        "status": _batch_status(batch.counts),
        "file_counts": _counts_body(batch.counts),
    }


def _batch_response(batch: BatchRecord) -> Response:
    body = batch_body(batch)
    return _polled(body, body["status"])


def _polled(body: dict[str, Any], status: str) -> Response:
    """An answer that clients ask for again until nothing is in progress any more."""
    return JsonResponse(body, headers={"openai-poll-after-ms": POLL_AFTER_MS} if status == "in_progress" else None)


def _store_status(store: StoreRecord) -> str:
    if store.is_expired:
        return "expired"
    return "in_progress" if store.counts.in_progress else "completed"


def _batch_status(counts: StatusCounts) -> str:
    """Completed if anything is: the counts tell the rest, as OpenAI's do."""
    if counts.in_progress:
        return "in_progress"
    if counts.cancelled:
        return "cancelled"
    return "failed" if counts.failed and not counts.completed else "completed"


def _counts_body(counts: StatusCounts) -> dict[str, int]:
    return {
        "in_progress": counts.in_progress,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "total": counts.total,
    }


def _chunking_body(chunking: ChunkingStrategy) -> dict[str, Any]:
    """As OpenAI tells it: `auto` as the sizes that it stands for, and what it does not know as `other`."""
    sizes = {"max_chunk_size_tokens": chunking.max_tokens, "chunk_overlap_tokens": chunking.overlap_tokens}
    if chunking.kind == "structural":
        ours = {"parent_tokens": chunking.parent_tokens, "context": chunking.context}
        return {"type": "other", "structural": {**sizes, **ours}}
    return {"type": "static", "static": sizes}


def _strategy(chunking: Chunking | None) -> ChunkingStrategy | None:
    return None if chunking is None else chunking.strategy()


def _page(wanted: PageQuery) -> Page:
    return Page(limit=wanted.limit, order=wanted.order, after=wanted.after, before=wanted.before)


def _store_id(request: Request) -> str:
    return str(request.path_params["store_id"])


def _file_id(request: Request) -> str:
    return str(request.path_params["file_id"])


def _batch_id(request: Request) -> str:
    return str(request.path_params["batch_id"])
