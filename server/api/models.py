"""`GET /v1/models` and `GET /v1/models/{id}`; `POST …/load` and `…/unload`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.config.schema import Capability
from server.services.loading import LoadingService
from server.services.models import ModelService, ModelView
from server.types import EncoderCounts, LoadProgress, ModelFacts, ModelKind, ModelState

_XINFERENCE_TYPES: dict[ModelKind, str] = {"chat": "LLM", "embedding": "embedding", "rerank": "rerank"}
_XINFERENCE_ABILITIES: dict[Capability, str] = {
    "chat": "chat", "completion": "generate", "tools": "tools", "embedding": "embed", "rerank": "rerank",
}  # fmt: skip


class ModelEndpoint:
    def __init__(self, service: ModelService, loading: LoadingService) -> None:
        self._service = service
        self._loading = loading

    async def list(self, _request: Request) -> Response:
        return JsonResponse({"object": "list", "data": [model_body(view) for view in self._service.list()]})

    async def get(self, request: Request) -> Response:
        name = request.path_params["model"]
        record_of(request).model = name
        return JsonResponse(model_body(self._service.get(name)))

    async def load(self, request: Request) -> Response:
        """200 if the model is loaded, 202 if it is on its way."""
        name = request.path_params["model"]
        record_of(request).model = name
        await self._loading.load(name)
        return self._answer(name, done="ready")

    async def unload(self, request: Request) -> Response:
        """200 if its memory is free, 202 while running requests may end."""
        name = request.path_params["model"]
        record_of(request).model = name
        await self._loading.unload(name)
        return self._answer(name, done="unloaded")

    def _answer(self, name: str, *, done: ModelState) -> Response:
        view = self._service.get(name)
        return JsonResponse(model_body(view), status_code=200 if view.state == done else 202)


def model_body(view: ModelView) -> dict[str, Any]:
    """OpenAI's four fields, what operators and tools want to know besides, and what Xinference's clients look at."""
    body = {
        "id": view.id,
        "object": "model",
        "created": view.created_s,
        "owned_by": "local",
        "kind": view.kind,
        "capabilities": view.capabilities,
        "context_length": view.context_length,
        "dimensions": view.dimensions,
        "state": view.state,
        "num_requests": view.num_requests,
        "memory_bytes": view.memory_bytes,
        "pinned": view.is_pinned,
        "expires_in_s": None if view.expires_in_s is None else round(view.expires_in_s, 1),
        "description": view.description,
        "aliases": view.aliases,
        "display": view.display.model_dump(),
        "runtime": _runtime(view.facts),
        **_for_xinference(view),
    }
    if view.progress is not None:
        body["loading"] = progress_body(view.progress)
    if view.waiting_for is not None:
        body["waiting_for"] = view.waiting_for
    if view.encoded is not None:
        body["encoded"] = _encoded(view.encoded)
    if view.rag is not None:
        body["rag"] = {"chat_model": view.rag.chat_model, "vector_stores": view.rag.vector_stores}
    return body if view.failure is None else {**body, "error": view.failure}


def progress_body(progress: LoadProgress) -> dict[str, float | None]:
    return {
        "fraction": None if progress.fraction is None else round(progress.fraction, 3),
        "elapsed_s": round(progress.elapsed_s, 1),
        "remaining_s": None if progress.remaining_s is None else round(progress.remaining_s, 1),
    }


def _for_xinference(view: ModelView) -> dict[str, Any]:
    """By these its client, and Dify's plugin for it, tell what a model may be asked."""
    abilities = [_XINFERENCE_ABILITIES[each] for each in view.capabilities if each in _XINFERENCE_ABILITIES]
    return {"model_name": view.id, "model_type": _XINFERENCE_TYPES[view.kind], "model_ability": abilities}


def _encoded(counts: EncoderCounts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__struct_fields__}


def _runtime(facts: ModelFacts | None) -> dict[str, Any] | None:
    """What the load found out and chose; unknown facts are null."""
    if facts is None:
        return None
    return {
        "architecture": facts.architecture or None,
        "num_parameters": facts.num_parameters or None,
        "load_s": facts.load_s,
        "details": facts.details,
    }
