"""What each route needs: a scope of the caller's key, or nothing. What is not listed here is not served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.tenant import caller_of
from server.caller import Caller, KeyScope
from server.errors import Forbidden
from server.services.grounding import Grounding

Scopes = tuple[KeyScope, ...]

OPEN: Final[Scopes] = ()
"""Served without a key: it tells nothing of models, documents and those who use them."""

INFERENCE: Final[Scopes] = ("inference",)
RAG: Final[Scopes] = ("rag",)
ADMIN: Final[Scopes] = ("admin",)
METRICS: Final[Scopes] = ("metrics",)
ANY_USE: Final[Scopes] = ("inference", "rag", "admin")
"""One of these suffices."""

ACCESS: dict[str, Scopes] = {
    "/v1/chat/completions": INFERENCE,
    "/v1/completions": INFERENCE,
    "/v1/messages": INFERENCE,
    "/v1/messages/count_tokens": INFERENCE,
    "/v1/responses": INFERENCE,
    "/v1/responses/{response_id}": INFERENCE,
    "/v1/responses/{response_id}/input_items": INFERENCE,
    "/v1/embeddings": INFERENCE,
    "/embed": INFERENCE,
    "/info": INFERENCE,
    "/api/embed": INFERENCE,
    "/api/embeddings": INFERENCE,
    "/v1/embed": INFERENCE,
    "/v2/embed": INFERENCE,
    "/v1/tokenize": INFERENCE,
    "/v1/detokenize": INFERENCE,
    "/v1/chat/apply_template": INFERENCE,
    "/tokenize": INFERENCE,
    "/detokenize": INFERENCE,
    "/chat/apply_template": INFERENCE,
    "/v1/rerank": INFERENCE,
    "/v2/rerank": INFERENCE,
    "/rerank": INFERENCE,
    "/v1/reranking": INFERENCE,
    "/reranking": INFERENCE,
    "/v1/score": INFERENCE,
    "/score": INFERENCE,
    "/v1/files": RAG,
    "/v1/files/{file_id}": RAG,
    "/v1/files/{file_id}/content": RAG,
    "/v1/vector_stores": RAG,
    "/v1/vector_stores/import": RAG,
    "/v1/vector_stores/{store_id}": RAG,
    "/v1/vector_stores/{store_id}/search": RAG,
    "/v1/vector_stores/{store_id}/evaluate": RAG,
    "/v1/vector_stores/{store_id}/reindex": RAG,
    "/v1/vector_stores/{store_id}/reindex/cancel": RAG,
    "/v1/vector_stores/{store_id}/export": RAG,
    "/v1/vector_stores/{store_id}/files": RAG,
    "/v1/vector_stores/{store_id}/files/{file_id}": RAG,
    "/v1/vector_stores/{store_id}/files/{file_id}/content": RAG,
    "/v1/vector_stores/{store_id}/file_batches": RAG,
    "/v1/vector_stores/{store_id}/file_batches/{batch_id}": RAG,
    "/v1/vector_stores/{store_id}/file_batches/{batch_id}/cancel": RAG,
    "/v1/vector_stores/{store_id}/file_batches/{batch_id}/files": RAG,
    "/v1/usage": ANY_USE,
    "/admin/requests": ADMIN,
    "/admin/requests/{request_id}": ADMIN,
    "/admin/reload": ADMIN,
    "/admin/logs": ADMIN,
    "/metrics": METRICS,
    "/v1/models": ANY_USE,
    "/v1/models/{model:path}/load": ADMIN,
    "/v1/models/{model:path}/unload": ADMIN,
    "/v1/models/{model:path}": ANY_USE,
    "/health": OPEN,
    "/health/live": OPEN,
    "/livez": OPEN,
    "/ready": OPEN,
    "/health/ready": OPEN,
    "/readyz": OPEN,
    "/version": OPEN,
    "/openapi.json": OPEN,
    "/docs": OPEN,
}
"""By path, as the route table has it; of all methods."""

OPEN_PATHS = frozenset(path for path, scopes in ACCESS.items() if scopes == OPEN)
"""None of them has a field, so they are compared as they stand."""

_DESCRIBED = {path.replace(":path}", "}"): scopes for path, scopes in ACCESS.items()}


def scopes_of(path: str) -> Scopes:
    """What a path needs, as descriptions write it: without `:path`."""
    return _DESCRIBED[path]


def guard(routes: Iterable[Route]) -> list[Route]:
    """Put the check of scopes before each route. Raises KeyError for one that the table does not have."""
    guarded = list(routes)
    for route in guarded:
        if scopes := ACCESS[route.path]:
            route.app = _ScopeGuard(route.app, scopes)
    return guarded


class _ScopeGuard:
    """Stands behind the router: what a path means is decided once, and nowhere else."""

    def __init__(self, app: ASGIApp, scopes: Scopes) -> None:
        self._app = app
        self._scopes = scopes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_scopes(caller_of(scope), self._scopes)
        await self._app(scope, receive, send)


def check_scopes(caller: Caller, needed: Scopes) -> None:
    """Raises Forbidden unless the caller has one of the scopes."""
    if caller.scopes.isdisjoint(needed):
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise Forbidden(
            f"this needs a key with scope {' or '.join(map(repr, needed))}, and yours has {has}; ask for another key"
        )


def allowed_grounding(caller: Caller, grounding: Grounding | None) -> Grounding | None:
    """Return what an answer shall be grounded in, unless the caller names vector stores and may not read any.

    A RAG model reads those that the operator bound it to, for whoever may ask it.

    Raises:
        Forbidden: So it is.
    """
    if grounding is not None and grounding.store_ids:
        check_scopes(caller, RAG)
    return grounding
