"""`/v1/vector_stores/{id}/reindex`: embed a store anew, see how far that is, stop it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.json_response import JsonResponse
from server.api.schemas.vector_stores import StoreReindex
from server.api.tenant import tenant_of
from server.rag.documents import ReindexRecord
from server.services.reindexing import ReindexService


class ReindexEndpoint:
    def __init__(self, service: ReindexService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, StoreReindex)
        return _answer(
            await self._service.begin(tenant_of(request), _store_id(request), embedding_model=wanted.embedding_model)
        )

    async def get(self, request: Request) -> Response:
        return _answer(await self._service.get(tenant_of(request), _store_id(request)))

    async def cancel(self, request: Request) -> Response:
        return _answer(await self._service.cancel(tenant_of(request), _store_id(request)))


def _answer(reindex: ReindexRecord) -> Response:
    return JsonResponse(reindex_body(reindex))


def reindex_body(reindex: ReindexRecord) -> dict[str, Any]:
    failure = reindex.failure
    return {
        "object": "vector_store.reindex",
        "vector_store_id": reindex.store_id,
        "created_at": reindex.created_at,
        "status": reindex.status,
        "last_error": None if failure is None else {"code": "server_error", "message": failure},
        "embedding_model": reindex.embedding_model,
        "dimensions": reindex.dimensions,
        "num_chunks": reindex.num_chunks,
        "num_chunks_done": reindex.num_chunks_done,
        "eta_s": reindex.eta_s,
        "waiting_for": reindex.waiting_for,
    }


def _store_id(request: Request) -> str:
    return str(request.path_params["store_id"])
