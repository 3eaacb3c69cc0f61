"""`POST /v1/vector_stores/{id}/evaluate`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.schemas.evaluation import EvaluationRequest
from server.api.search_results import STAGES
from server.api.tenant import tenant_of
from server.rag.evaluation import MEASURES, Assessment
from server.services.evaluation import Evaluation, EvaluationService

JsonObject = dict[str, Any]


class EvaluationEndpoint:
    def __init__(self, service: EvaluationService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        wanted = await self._body.read(request, EvaluationRequest)
        store_id = str(request.path_params["store_id"])
        work = self._service.evaluate(
            tenant_of(request),
            store_id,
            wanted.questions(),
            wanted.ways(),
            judged=wanted.judged,
            timeout_s=wanted.timeout_s,
        )
        evaluation = await run_while_connected(request.receive, work)
        body = await asyncio.to_thread(evaluation_body, evaluation)  # intervals take a while to estimate
        return JsonResponse({"object": "vector_store.evaluation", "vector_store_id": store_id, **body})


def evaluation_body(evaluation: Evaluation) -> JsonObject:
    """What was measured, with the questions, so that made ones can be looked at; `hearth eval` prints the same."""
    (_, first), *_ = evaluation.results
    gains = evaluation.judgements.gains
    return {
        "judged": evaluation.judged,
        "num_queries": len(evaluation.judgements.judged),
        "unknown_items": evaluation.unknown_items,
        "configurations": [
            {
                "name": configuration.name,
                "stages": {STAGES[stage]: measures_body(found) for stage, found in measured.stages.items()},
                "gain_over_parts": {
                    STAGES[stage]: gain_body(measured.stages["final"], found)
                    for stage, found in measured.stages.items()
                    if stage != "final"
                },
                "gain_over_first": None
                if measured is first
                else gain_body(measured.stages["final"], first.stages["final"]),
                "rerank_failures": measured.failures,
            }
            for configuration, measured in evaluation.results
        ],
        "queries": [
            {"id": id_, "text": text, "relevant": [item for item, gain in gains[id_].items() if gain > 0]}
            for id_, text in evaluation.judgements.judged.items()
        ],
    }


def measures_body(assessment: Assessment) -> JsonObject:
    return {name: asdict(assessment.estimate(name)) for name in MEASURES}


def gain_body(better: Assessment, other: Assessment) -> JsonObject:
    return {name: asdict(better.gain_over(other, name)) for name in MEASURES}
