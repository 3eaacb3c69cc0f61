"""Rerank, in the dialect of whoever asks."""

from __future__ import annotations

from collections.abc import Set

from starlette.requests import Request
from starlette.responses import Response

from server.api.body import JsonBody
from server.api.disconnect import run_while_connected
from server.api.errors import error_response
from server.api.json_response import JsonResponse
from server.api.record import record_of
from server.api.rerank_dialects import choose_dialect
from server.api.schemas.rerank import RerankRequest
from server.errors import HearthError
from server.services.rerank import Ranking, RerankService
from server.types import Usage


class RerankEndpoint:
    def __init__(self, service: RerankService, body: JsonBody) -> None:
        self._service = service
        self._body = body

    async def create(self, request: Request) -> Response:
        record = record_of(request)
        named: Set[str | None] = set()
        try:
            wanted = await self._body.read(request, RerankRequest)
            named = wanted.model_fields_set
            dialect = choose_dialect(request.url.path, named)
            record.model = wanted.model
            work = self._service.rerank(
                wanted.model,
                wanted.query,
                [document.text for document in wanted.documents],
                top_n=wanted.num_wanted,
                timeout_s=None if wanted.timeout_ms is None else wanted.timeout_ms / 1000,
                spans=wanted.spans(),
                scoring=wanted.scoring(default_truncate=dialect.truncate),
            )
            ranking = await run_while_connected(request.receive, work)
        except HearthError as exc:
            # Of a body that could not be read, the field at fault is all that is known.
            dialect = choose_dialect(request.url.path, named or {exc.param})
            return error_response(_said_of(dialect.documents, exc), request.scope, shape=dialect.render_error)
        record.model = wanted.model or ranking.model_id
        record.usage = Usage(prompt_tokens=ranking.num_prompt_tokens)
        return JsonResponse(dialect.render(wanted, ranking), headers=_headers(ranking))


def _said_of(name: str, error: HearthError) -> HearthError:
    """What is wrong with `documents[n]`, said of the field as the client called it."""
    if name == "documents" or error.param is None or not error.param.startswith("documents"):
        return error
    param = error.param.replace("documents", name)
    return type(error)(error.message.replace(error.param, param), param=param, code=error.code)


def _headers(ranking: Ranking) -> dict[str, str]:
    """What was done to the documents, for the dialects whose bodies have no place for it."""
    return {
        "x-hearth-truncated-inputs": str(ranking.num_truncated),
        "x-hearth-scored-documents": str(ranking.num_scored),
    }
