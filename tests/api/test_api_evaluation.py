"""`POST /v1/vector_stores/{id}/evaluate`: what is asked reaches the service; what was measured is written down."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from server.rag.evaluation import MEASURES, Assessment, Judgements
from server.rag.evaluation_runs import Measured
from server.rag.filters import Comparison
from server.rag.search import SearchOptions
from server.services.evaluation import Configuration, Evaluation, KnownItems
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection

EVALUATE = "/v1/vector_stores/vs_1/evaluate"
QUERY = {"id": "q1", "text": "is it warm"}
QREL = {"query_id": "q1", "file_id": "file-1"}
DEFAULT = Configuration(name="1", options=SearchOptions())


def assessed(value: float) -> Assessment:
    return Assessment({name: np.array([value]) for name in MEASURES})


EVALUATION = Evaluation(
    judgements=Judgements({"q1": "is it warm"}, {"q1": {"file-1": 1, "file-2": 0}}),
    judged="file",
    unknown_items=(),
    results=(
        (DEFAULT, Measured(stages={"fused": assessed(0.5), "final": assessed(0.75)}, failures=("it was slow",))),
        (
            Configuration(name="words", options=SearchOptions(embedding_weight=0)),
            Measured(stages={"final": assessed(0.5)}, failures=()),
        ),
    ),
)


@pytest.fixture(autouse=True)
def _evaluation(stack: Stack) -> None:
    stack.evaluation.answer = EVALUATION


async def test_what_was_measured_is_told_for_each_configuration(client: httpx.AsyncClient) -> None:
    body = (await client.post(EVALUATE, json={"known_item": {}})).json()

    first, second = body["configurations"]
    assert (body["object"], body["judged"], body["num_queries"], body["unknown_items"]) == (
        *("vector_store.evaluation", "file", 1, []),
    )
    assert body["queries"] == [{"id": "q1", "text": "is it warm", "relevant": ["file-1"]}]
    assert first["name"] == "1"
    assert first["stages"]["final"]["MRR"] == {"mean": 0.75, "low": 0.75, "high": 0.75}
    assert first["gain_over_parts"] == {"rrf": {name: {"mean": 0.25, "low": 0.25, "high": 0.25} for name in MEASURES}}
    assert (first["gain_over_first"], first["rerank_failures"]) == (None, ["it was slow"])
    assert second["gain_over_first"]["MRR"]["mean"] == -0.25


async def test_known_items_are_the_default_number(client: httpx.AsyncClient, stack: Stack) -> None:
    await client.post(EVALUATE, json={"known_item": {}})

    assert stack.evaluation.calls == [
        ("vs_1", KnownItems(num_questions=100), [DEFAULT], {"judged": "file", "timeout_s": 600.0})
    ]


async def test_everything_that_can_be_asked_is_passed_on(client: httpx.AsyncClient, stack: Stack) -> None:
    ways = [
        {"name": "plain", "ranking_options": {"ranker": "none"}},
        {
            "filters": {"type": "eq", "key": "year", "value": 1999},
            "ranking_options": {"hybrid_search": {"embedding_weight": 2, "text_weight": 1}},
        },
    ]
    qrels = [{"query_id": "q1", "chunk_id": 7, "relevance": 2}, {"query_id": "q1", "chunk_id": 8}]

    await client.post(EVALUATE, json={"queries": [QUERY], "qrels": qrels, "configurations": ways, "timeout_s": 5})

    [(_, questions, configurations, options)] = stack.evaluation.calls
    weighted = SearchOptions(filter=Comparison("eq", "year", 1999), embedding_weight=2.0, text_weight=1.0)
    assert questions == Judgements({"q1": "is it warm"}, {"q1": {"7": 2, "8": 1}})
    assert configurations == [
        Configuration(name="plain", options=SearchOptions(ranker="none")),
        Configuration(name="2", options=weighted),
    ]
    assert options == {"judged": "chunk", "timeout_s": 5.0}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "queries"),
        ({"queries": [QUERY]}, "qrels"),
        ({"qrels": [QREL]}, "queries"),
        ({"known_item": {}, "queries": [QUERY], "qrels": [QREL]}, "queries"),
        ({"known_item": {"num_questions": 1001}}, "known_item.num_questions"),
        ({"known_item": {"seed": -1}}, "known_item.seed"),
        ({"queries": [], "qrels": [QREL]}, "queries"),
        ({"queries": [{"id": "q1", "text": " "}], "qrels": [QREL]}, "queries[0].text"),
        ({"queries": [QUERY, QUERY], "qrels": [QREL]}, "queries[1].id"),
        ({"queries": [QUERY], "qrels": [{"query_id": "q1"}]}, "qrels[0].chunk_id"),
        ({"queries": [QUERY], "qrels": [{**QREL, "chunk_id": 1}]}, "qrels[0].chunk_id"),
        ({"queries": [QUERY], "qrels": [{**QREL, "query_id": "q2"}]}, "qrels[0].query_id"),
        ({"queries": [QUERY], "qrels": [QREL, {"query_id": "q1", "chunk_id": 1}]}, "qrels[1]"),
        ({"queries": [QUERY], "qrels": [{**QREL, "relevance": 0}]}, "qrels"),
        ({"queries": [QUERY], "qrels": [{**QREL, "relevance": 0.5}]}, "qrels[0].relevance"),
        ({"known_item": {}, "configurations": []}, "configurations"),
        ({"known_item": {}, "configurations": [{}] * 9}, "configurations"),
        ({"known_item": {}, "configurations": [{"name": "2"}, {}]}, "configurations[1].name"),
        ({"known_item": {}, "configurations": [{"filters": []}]}, "configurations[0].filters"),
        ({"known_item": {}, "configurations": [{"weight": 1}]}, "configurations[0].weight"),
        ({"known_item": {}, "timeout_s": 3601}, "timeout_s"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, stack: Stack, body: dict[str, Any], param: str
) -> None:
    response = await client.post(EVALUATE, json=body)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert stack.evaluation.calls == []


async def test_an_evaluation_ends_when_its_client_goes(stack: Stack) -> None:
    stack.evaluation.gate = asyncio.Event()
    connection = AsgiConnection(stack.app(), EVALUATE, {"known_item": {}})
    await stack.evaluation.begun.wait()

    connection.disconnect()

    assert await asyncio.wait_for(stack.evaluation.cancelled.wait(), 5)
    await connection.done
