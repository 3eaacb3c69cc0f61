"""`POST /v1/embeddings`, as floats or as base64 of little-endian float32."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.api.schemas.embeddings import EmbeddingRequest
from server.services.embeddings import EmbeddingService
from server.types import Usage


class EmbeddingEndpoint:
    def __init__(self, service: EmbeddingService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, EmbeddingRequest)
        record = record_of(request)
        record.model = wanted.model
        work = self._service.embed(wanted.model, wanted.input, dimensions=wanted.dimensions, truncate=wanted.truncate)
        model_id, result = await run_while_connected(request.receive, work)
        record.usage = Usage(prompt_tokens=result.num_prompt_tokens)
        rows = _as_base64(result.vectors) if wanted.encoding_format == "base64" else result.vectors
        return JsonResponse(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
                "model": model_id,
                "usage": {
                    "prompt_tokens": result.num_prompt_tokens,
                    "total_tokens": result.num_prompt_tokens,
                    "truncated_inputs": result.num_truncated,
                },
            }
        )


def _as_base64(vectors: npt.NDArray[np.float32]) -> list[str]:
    little_endian: npt.NDArray[Any] = np.ascontiguousarray(vectors, dtype="<f4")
    return [b64encode(row).decode() for row in little_endian]
