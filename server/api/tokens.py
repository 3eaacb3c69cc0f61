"""`/v1/tokenize`, `/v1/detokenize` and `/v1/chat/apply_template`, also without `/v1`.

What is asked tells whose client asks: answers have the fields of llama-server and vLLM in one body, because clients
ignore what they do not know; text-embeddings-inference answers a list.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.api.schemas.tokens import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest
from server.api.tei import spelled_tokens
from server.services.embeddings import EmbeddingService
from server.services.tokens import TokenList, TokenService


class TokenEndpoint:
    def __init__(self, service: TokenService, embeddings: EmbeddingService, body: JsonBody) -> None:
        self._service = service
        self._embeddings = embeddings
        self._body = body

    async def tokenize(self, request: Request) -> Response:
        wanted = await self._body.read(request, TokenizeRequest)
        record_of(request).model = wanted.model
        if wanted.source() == "inputs":
            work = self._embeddings.tokenize(
                wanted.model, wanted.inputs or [], add_special_tokens=wanted.add_special_tokens
            )
            return JsonResponse(await spelled_tokens(await run_while_connected(request.receive, work)))
        with_pieces = wanted.with_pieces or wanted.return_token_strs
        asked = self._service.tokenize(wanted.model, wanted.to_prompt(), with_pieces=with_pieces)
        tokens = await run_while_connected(request.receive, asked)
        body = await asyncio.to_thread(_token_fields, tokens, with_pieces=wanted.with_pieces)
        if wanted.return_token_strs:
            body["token_strs"] = [piece.decode("utf-8", "replace") for piece in tokens.pieces or ()]
        return JsonResponse(body)

    async def detokenize(self, request: Request) -> Response:
        wanted = await self._body.read(request, DetokenizeRequest)
        record_of(request).model = wanted.model
        work = self._service.detokenize(wanted.model, wanted.tokens)
        text = await run_while_connected(request.receive, work)
        return JsonResponse({"content": text, "prompt": text})  # llama-server's word, and vLLM's

    async def apply_template(self, request: Request) -> Response:
        wanted = await self._body.read(request, ApplyTemplateRequest)
        record_of(request).model = wanted.model
        work = self._service.render(wanted.model, wanted.to_prompt(), with_pieces=wanted.with_pieces)
        rendered, tokens = await run_while_connected(request.receive, work)
        fields = await asyncio.to_thread(_token_fields, tokens, with_pieces=wanted.with_pieces)
        return JsonResponse(
            {
                "prompt": "".join(part.text for part in rendered.parts),
                "parts": [{"text": part.text, "parses_special": part.parses_special} for part in rendered.parts],
                **fields,
            }
        )


def _token_fields(tokens: TokenList, *, with_pieces: bool) -> dict[str, Any]:
    """Made in a thread: there may be as many as a context holds."""
    ids: list[Any] = tokens.token_ids
    if with_pieces:
        pairs = zip(tokens.token_ids, tokens.pieces or (), strict=True)
        ids = [{"id": token_id, "piece": _piece(piece)} for token_id, piece in pairs]
    return {
        "model": tokens.model_id,
        "count": len(ids),
        "max_model_len": tokens.context_length,
        "tokens": ids,
    }


def _piece(piece: bytes) -> str | list[int]:
    """As llama-server tells it."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
