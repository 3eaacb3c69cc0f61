"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.config.schema import Capability
from server.services.models import ModelService, ModelView
from server.types import EncoderCounts, ModelFacts, ModelKind

_XINFERENCE_TYPES: dict[ModelKind, str] = {"chat": "LLM", "embedding": "embedding", "rerank": "rerank"}
_XINFERENCE_ABILITIES: dict[Capability, str] = {
    "chat": "chat", "completion": "generate", "tools": "tools", "embedding": "embed", "rerank": "rerank",
}  # fmt: skip


class ModelEndpoint:
    def __init__(self, service: ModelService) -> None:
        self._service = service

    async def list(self, _request: Request) -> Response:
        return JsonResponse({"object": "list", "data": [model_body(view) for view in self._service.list()]})

    async def get(self, request: Request) -> Response:
        name = request.path_params["model"]
        record_of(request).model = name
        return JsonResponse(model_body(self._service.get(name)))


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
        "description": view.description,
        "aliases": view.aliases,
        "display": view.display.model_dump(),
        "runtime": _runtime(view.facts),
        **_for_xinference(view),
    }
    if view.encoded is not None:
        body["encoded"] = _encoded(view.encoded)
    if view.rag is not None:
        body["rag"] = {"chat_model": view.rag.chat_model, "vector_stores": view.rag.vector_stores}
    return body if view.failure is None else {**body, "error": view.failure}


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
