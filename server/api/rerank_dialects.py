"""How each rerank API answers: its fields, its errors, and what it does with long documents unless told.

All of them take the same request (`schemas/rerank.py`); the path and what only one API has in its requests tell which
answer the client reads. Where two can be given in one body they are, because clients ignore what they do not know.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, Literal

from server.api.schemas.rerank import RerankRequest
from server.services.generation import new_id
from server.services.rerank import RankedDocument, Ranking

DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere's: one query with up to so many documents."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """One way to answer.

    Attributes:
        render: The answer's body.
        render_error: The body of an error, made from OpenAI's.
        documents: What it calls them.
        truncate: What becomes of documents that are too long, where the request does not say.
    """

    render: Callable[[RerankRequest, Ranking], Any]
    render_error: Callable[[Body], Body]
    documents: str = "documents"
    truncate: Literal["error", "end"] = "error"


def choose_dialect(path: str, named: Set[str | None]) -> Dialect:
    """Tell whose client asks, by the path and the fields that the request names."""
    if "texts" in named:
        return TEI
    if path == "/v2/rerank":
        return COHERE_V2
    if not named.isdisjoint({"top_k", "truncation"}):
        return VOYAGE
    return COMMON


# ---- answers


def _common(request: RerankRequest, ranking: Ranking) -> Body:
    """Cohere v1, Jina, vLLM, llama.cpp, Infinity and Xinference in one."""
    return {
        "id": new_id("rerank"),
        "object": "list",
        "model": ranking.model_id,
        "results": [_result(request, ranked) for ranked in ranking.documents],
        "meta": _meta(ranking, version="1"),
        "tokens": _tokens(ranking),  # older RAGFlow looks here
        "usage": _usage(ranking),
    }


def _cohere_v2(_request: RerankRequest, ranking: Ranking) -> Body:
    """Has no documents in its results, whatever was asked for."""
    return {
        "id": new_id("rerank"),
        "results": [_bare_result(ranked) for ranked in ranking.documents],
        "meta": _meta(ranking, version="2"),
        "usage": _usage(ranking),
    }


def _voyage(request: RerankRequest, ranking: Ranking) -> Body:
    body = _common(request, ranking)
    return {**body, "data": [_voyage_item(request, ranked) for ranked in ranking.documents]}


def _voyage_item(request: RerankRequest, ranked: RankedDocument) -> Body:
    item: Body = {"index": ranked.index, "relevance_score": ranked.score}
    if request.wants_documents:
        item["document"] = request.documents[ranked.index].text
    return item


def _tei(request: RerankRequest, ranking: Ranking) -> list[Body]:
    return [_tei_rank(request, ranked) for ranked in ranking.documents]


def _tei_rank(request: RerankRequest, ranked: RankedDocument) -> Body:
    rank: Body = {"index": ranked.index, "score": ranked.score}
    if request.wants_documents:
        rank["text"] = request.documents[ranked.index].text
    return rank


def _result(request: RerankRequest, ranked: RankedDocument) -> Body:
    result = _bare_result(ranked)
    if request.wants_documents:
        result["document"] = request.documents[ranked.index].to_wire()
    return result


def _bare_result(ranked: RankedDocument) -> Body:
    result: Body = {"index": ranked.index, "relevance_score": ranked.score}
    if ranked.spans is not None:
        result["relevant_spans"] = [{"start": s.start, "end": s.end, "score": s.score} for s in ranked.spans]
    return result


def _meta(ranking: Ranking, *, version: str) -> Body:
    return {
        "api_version": {"version": version},
        "billed_units": {"search_units": -(-ranking.num_documents // DOCUMENTS_PER_SEARCH_UNIT)},
        "tokens": _tokens(ranking),
        "cached_tokens": ranking.num_cached_tokens,
        "reranked": ranking.num_scored,
        **_warnings(ranking),
    }


def _usage(ranking: Ranking) -> Body:
    return {
        "prompt_tokens": ranking.num_prompt_tokens,
        "total_tokens": ranking.num_prompt_tokens,
        "truncated_inputs": ranking.num_truncated,
        "cached_inputs": ranking.num_cached,
        "scored_documents": ranking.num_scored,
    }


def _tokens(ranking: Ranking) -> Body:
    return {"input_tokens": ranking.num_prompt_tokens, "output_tokens": 0}


def _warnings(ranking: Ranking) -> Body:
    warnings = []
    if ranking.num_truncated:
        warnings.append(f"{ranking.num_truncated} of {ranking.num_documents} documents were too long and were cut")
    if ranking.num_scored < ranking.num_documents:
        warnings.append(f"{ranking.num_scored} of {ranking.num_documents} documents were scored in time")
    return {"warnings": warnings} if warnings else {}


# ---- errors


def _common_error(body: Body) -> Body:
    """Cohere's users read `message`, Jina's and Xinference's clients `detail`."""
    message = body["error"]["message"]
    return {"message": message, "detail": message, **body}


_TEI_ERROR_TYPES = {"overloaded": "Overloaded", "model_unavailable": "Unhealthy", "worker_crashed": "Unhealthy"}


def _tei_error(body: Body) -> Body:
    error = body["error"]
    fallback = "Validation" if error["type"] == "invalid_request_error" else "Backend"
    return {"error": error["message"], "error_type": _TEI_ERROR_TYPES.get(error["code"], fallback)}


COMMON = Dialect(_common, _common_error)
COHERE_V2 = Dialect(_cohere_v2, _common_error, truncate="end")
VOYAGE = Dialect(_voyage, _common_error, truncate="end")
TEI = Dialect(_tei, _tei_error, documents="texts")
