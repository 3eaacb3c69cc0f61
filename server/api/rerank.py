"""`POST /v1/rerank` and `/rerank`: Cohere v1's answer with Jina's fields; clients ignore what they do not know."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.api.schemas.rerank import RerankRequest
from server.services.generation import new_id
from server.services.rerank import RankedDocument, Ranking, RerankService
from server.types import Usage


class RerankEndpoint:
    def __init__(self, service: RerankService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, RerankRequest)
        record = record_of(request)
        record.model = wanted.model
        work = self._service.rerank(
            wanted.model, wanted.query, wanted.documents, top_n=wanted.top_n, truncate=wanted.truncate
        )
        ranking = await run_while_connected(request.receive, work)
        record.usage = Usage(prompt_tokens=ranking.num_prompt_tokens)
        return JsonResponse(_body(ranking, wanted.documents if wanted.return_documents else None))


def _body(ranking: Ranking, documents: list[str] | None) -> dict[str, Any]:
    num_tokens = ranking.num_prompt_tokens
    return {
        "id": new_id("rerank"),
        "object": "list",
        "model": ranking.model_id,
        "results": [_result(ranked, documents) for ranked in ranking.documents],
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": num_tokens, "output_tokens": 0},
        },
        "usage": {
            "prompt_tokens": num_tokens,
            "total_tokens": num_tokens,
            "truncated_inputs": ranking.num_truncated,
        },
    }


def _result(ranked: RankedDocument, documents: list[str] | None) -> dict[str, Any]:
    result: dict[str, Any] = {"index": ranked.index, "relevance_score": ranked.score}
    if documents is not None:
        result["document"] = {"text": documents[ranked.index]}  # always an object: some clients read `.text`
    return result
