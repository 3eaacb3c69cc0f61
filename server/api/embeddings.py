"""`POST /v1/embeddings`, as numbers or as base64; and what the other dialects of embeddings share with it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.api.schemas.embeddings import EmbeddingRequest
from server.api.vector_json import Row, as_base64, as_numbers, write_rows
from server.errors import InvalidRequest
from server.services.embeddings import EmbeddingInputs, EmbeddingOptions, Embeddings, EmbeddingService
from server.types import Usage


class EmbeddingEndpoint:
    def __init__(self, service: EmbeddingService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, EmbeddingRequest)
        if wanted.output_dtype != "float" and not wanted.normalize:
            raise InvalidRequest(
                f"output_dtype {wanted.output_dtype!r} needs unit vectors; leave out normalize", param="normalize"
            )
        embeddings = await embed_while_connected(request, self._service, wanted.model, wanted.input, wanted.options())
        to_value = as_base64 if wanted.encoding_format == "base64" else as_numbers

        def to_item(index: int, row: Row) -> object:
            return {"object": "embedding", "index": index, "embedding": to_value(index, row)}

        num_tokens = embeddings.num_prompt_tokens
        return JsonResponse(
            {
                "object": "list",
                "data": await write_rows(embeddings.vectors, to_item, wanted.output_dtype),
                "model": embeddings.model_id,
                "usage": {
                    "prompt_tokens": num_tokens,
                    "total_tokens": num_tokens,
                    "truncated_inputs": embeddings.num_truncated,
                    "cached_inputs": embeddings.num_cached,
                },
            },
            headers=embedding_headers(embeddings),
        )


async def embed_while_connected(
    request: Request,
    service: EmbeddingService,
    model: str | None,
    inputs: EmbeddingInputs,
    options: EmbeddingOptions,
) -> Embeddings:
    """Embed until done or until the client leaves; note in the request's record what the log will say."""
    record = record_of(request)
    record.model = model
    embeddings = await run_while_connected(request.receive, service.embed(model, inputs, options))
    record.model = model or embeddings.model_id
    record.usage = Usage(prompt_tokens=embeddings.num_prompt_tokens)
    return embeddings


def embedding_headers(embeddings: Embeddings) -> dict[str, str]:
    """What was done to the inputs, for the dialects whose bodies have no place for it."""
    headers = {"x-hearth-truncated-inputs": str(embeddings.num_truncated)}
    if embeddings.token_encoding is not None:
        headers["x-hearth-token-encoding"] = embeddings.token_encoding
    return headers
