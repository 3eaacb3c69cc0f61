"""`POST /v1/score` and `/score`: the scores of pairs in their order, as vLLM answers."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.api.schemas.score import ScoreRequest
from server.services.generation import new_id
from server.services.rerank import RerankService
from server.types import Usage


class ScoreEndpoint:
    def __init__(self, service: RerankService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, ScoreRequest)
        record = record_of(request)
        record.model = wanted.model
        work = self._service.score(wanted.model, wanted.queries, wanted.text_2, scoring=wanted.scoring())
        result = await run_while_connected(request.receive, work)
        record.model = wanted.model or result.model_id
        record.usage = Usage(prompt_tokens=result.num_prompt_tokens)
        return JsonResponse(
            {
                "id": new_id("score"),
                "object": "list",
                "created": int(time.time()),
                "model": result.model_id,
                "data": [
                    {"index": index, "object": "score", "score": score} for index, score in enumerate(result.scores)
                ],
                "usage": {
                    "prompt_tokens": result.num_prompt_tokens,
                    "total_tokens": result.num_prompt_tokens,
                    "truncated_inputs": result.num_truncated,
                    "cached_inputs": result.num_cached,
                },
            }
        )
