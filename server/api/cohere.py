"""Cohere's embedding routes: `POST /v2/embed`, and `POST /v1/embed` with its two shapes of an answer."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.embeddings import embed_while_connected, embedding_headers
from server.api.json_response import JsonResponse
from server.api.schemas.embeddings import CohereEmbedRequest, CohereType
from server.api.vector_json import as_base64, as_numbers, write_rows
from server.services.embeddings import Embeddings, EmbeddingService
from server.services.generation import new_id


class CohereEndpoint:
    def __init__(self, service: EmbeddingService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def embed_v1(self, request: Request) -> Response:
        wanted = await self._body.read(request, CohereEmbedRequest)
        embeddings = await self._embed(request, wanted)
        if wanted.embedding_types is None:
            rows = await write_rows(embeddings.vectors, as_numbers)
            return _response("embeddings_floats", rows, embeddings, wanted, version="1")
        by_type = await _by_type(embeddings, wanted.embedding_types)
        return _response("embeddings_by_type", by_type, embeddings, wanted, version="1")

    async def embed_v2(self, request: Request) -> Response:
        wanted = await self._body.read(request, CohereEmbedRequest)
        embeddings = await self._embed(request, wanted)
        by_type = await _by_type(embeddings, wanted.embedding_types or ["float"])
        return _response("embeddings_by_type", by_type, embeddings, wanted, version="2")

    async def _embed(self, request: Request, wanted: CohereEmbedRequest) -> Embeddings:
        return await embed_while_connected(request, self._service, wanted.model, wanted.texts, wanted.options())


async def _by_type(embeddings: Embeddings, types: list[CohereType]) -> dict[str, orjson.Fragment]:
    return {name: await _rows_of_type(embeddings, name) for name in types}


async def _rows_of_type(embeddings: Embeddings, name: CohereType) -> orjson.Fragment:
    if name == "base64":
        return await write_rows(embeddings.vectors, as_base64)
    return await write_rows(embeddings.vectors, as_numbers, name)


def _response(
    response_type: str, rows: object, embeddings: Embeddings, wanted: CohereEmbedRequest, *, version: str
) -> Response:
    num_tokens = embeddings.num_prompt_tokens
    meta: dict[str, Any] = {
        "api_version": {"version": version},
        "billed_units": {"input_tokens": num_tokens},
        "tokens": {"input_tokens": num_tokens, "output_tokens": 0},
    }
    if embeddings.num_truncated:
        meta["warnings"] = [f"{embeddings.num_truncated} of {len(wanted.texts)} texts were too long and were cut"]
    return JsonResponse(
        {
            "response_type": response_type,
            "id": new_id("embed"),
            "embeddings": rows,
            "texts": wanted.texts,
            "meta": meta,
        },
        headers=embedding_headers(embeddings),
    )
