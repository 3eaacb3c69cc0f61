"""The routes of text-embeddings-inference (TEI): `POST /embed` and `GET /info`; `POST /tokenize` is in `tokens.py`.

TEI serves one model; here it is the first embedding model, unless a body names another one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.embeddings import embed_while_connected, embedding_headers
from server.api.json_response import JsonResponse
from server.api.schemas.embeddings import TeiEmbedRequest
from server.api.vector_json import as_numbers, write_rows
from server.config.server_section import Limits
from server.errors import ModelNotFound, ModelUnavailable
from server.services import Services
from server.services.models import ModelView
from server.types import Token


class TeiEndpoint:
    def __init__(self, services: Services, body: JsonBody, limits: Limits) -> None:
        self._embeddings = services.embeddings
        self._models = services.models
        self._version = services.version
        self._body = body
        self._limits = limits

    async def embed(self, request: Request) -> Response:
        wanted = await self._body.read(request, TeiEmbedRequest)
        embeddings = await embed_while_connected(
            request, self._embeddings, wanted.model, wanted.inputs, wanted.options()
        )
        return JsonResponse(await write_rows(embeddings.vectors, as_numbers), headers=embedding_headers(embeddings))

    async def info(self, _request: Request) -> Response:
        """The first embedding model; on a server without one, the first reranker."""
        views = sorted(self._models.list(), key=lambda view: view.kind != "embedding")
        view = next((view for view in views if view.kind != "chat"), None)
        if view is None:
            raise ModelNotFound("this server has no embedding or rerank model")
        if view.facts is None:
            raise ModelUnavailable(f"model {view.id!r} is not loaded yet; try again later")
        return JsonResponse(
            {
                "model_id": view.display.hf_repo or view.id,
                "served_model_name": view.id,
                "model_sha": None,
                "model_dtype": view.facts.details.get("dtype", "float32"),
                "model_type": _model_type(view),
                "max_concurrent_requests": self._limits.max_queued_requests,
                "max_input_length": view.facts.context_length,
                "max_batch_tokens": view.facts.context_length * self._limits.max_inputs,
                "max_client_batch_size": self._limits.max_inputs,
                "auto_truncate": False,
                "version": self._version,
            }
        )


async def spelled_tokens(tokens: list[list[Token]]) -> orjson.Fragment:
    """The answer to `POST /tokenize`."""
    return await asyncio.to_thread(_write_tokens, tokens)


def _write_tokens(tokens: list[list[Token]]) -> orjson.Fragment:
    """Takes a second for a million tokens; a text at a time, because orjson keeps the interpreter's lock."""
    return orjson.Fragment(
        b"[" + b",".join(orjson.dumps([_token_body(token) for token in each]) for each in tokens) + b"]"
    )


def _token_body(token: Token) -> dict[str, Any]:
    is_special = token.start is None
    return {"id": token.id, "text": token.text, "special": is_special, "start": token.start, "stop": token.stop}


def _model_type(view: ModelView) -> dict[str, Any]:
    """One key, by which clients tell what the model is."""
    if view.kind == "rerank":
        return {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert view.facts is not None
    return {"embedding": {"pooling": view.facts.details.get("pooling", "unknown")}}
