"""Ollama's embedding routes: `POST /api/embed`, and the older `POST /api/embeddings`."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.embeddings import embed_while_connected, embedding_headers
from server.api.json_response import JsonResponse
from server.api.schemas.embeddings import OllamaEmbedRequest, OllamaLegacyRequest
from server.api.vector_json import as_numbers, write_rows
from server.services.embeddings import EmbeddingOptions, EmbeddingService


class OllamaEndpoint:
    def __init__(self, service: EmbeddingService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def embed(self, request: Request) -> Response:
        wanted = await self._body.read(request, OllamaEmbedRequest)
        options = EmbeddingOptions(dimensions=wanted.dimensions, truncate="end" if wanted.truncate else "error")
        started_at_ns = time.monotonic_ns()
        embeddings = await embed_while_connected(request, self._service, wanted.model, wanted.input, options)
        return JsonResponse(
            {
                "model": wanted.model,  # as it was asked for: clients compare
                "embeddings": await write_rows(embeddings.vectors, as_numbers),
                "total_duration": time.monotonic_ns() - started_at_ns,
                "load_duration": 0,
                "prompt_eval_count": embeddings.num_prompt_tokens,
            },
            headers=embedding_headers(embeddings),
        )

    async def embed_one(self, request: Request) -> Response:
        wanted = await self._body.read(request, OllamaLegacyRequest)
        options = EmbeddingOptions(truncate="end")
        embeddings = await embed_while_connected(request, self._service, wanted.model, [wanted.prompt], options)
        return JsonResponse({"embedding": embeddings.vectors[0]}, headers=embedding_headers(embeddings))
