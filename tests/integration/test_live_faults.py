"""`kill -9` of workers under traffic: clients hear of it at once, the model comes back, the others notice nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from benchmarks.faults import TRAFFIC, Fault, kill_worker
from benchmarks.server_process import ServerProcess
from tests.integration.live_models import ask

pytestmark = pytest.mark.integration

CHAT, EMBEDDING, RERANK = TRAFFIC


def _events(text: str) -> list[str]:
    return [block.removeprefix("data: ") for block in text.split("\n\n") if block.startswith("data: ")]


def _check(fault: Fault, record_property: Callable[[str, object], None]) -> None:
    record_property("time_to_error_s", round(fault.error_s, 3))
    record_property("time_to_serve_again_s", round(fault.serve_again_s, 3))
    print(f"error after {fault.error_s:.3f} s, serves again after {fault.serve_again_s:.2f} s")
    assert fault.error_s < 2
    assert fault.bystanders and set(fault.bystanders) == {200}


async def test_a_killed_chat_worker_ends_its_streams_with_one_error_event(
    live_server: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    fault = await kill_worker(live_server, CHAT)

    _check(fault, record_property)
    for ending in fault.endings:
        *pieces, last = _events(ending.text)
        assert ending.status == 200
        assert json.loads(last)["error"]["code"] == "worker_crashed"
        assert pieces and not any("error" in json.loads(piece) for piece in pieces)


@pytest.mark.parametrize("traffic", [EMBEDDING, RERANK], ids=["embedding", "rerank"])
async def test_a_killed_encoder_worker_answers_503_with_a_time_to_retry(
    live_server: ServerProcess, record_property: Callable[[str, object], None], traffic: object
) -> None:
    assert traffic in TRAFFIC

    fault = await kill_worker(live_server, traffic)

    _check(fault, record_property)
    for ending in fault.endings:
        assert ending.status == 503
        assert int(ending.headers["retry-after"]) >= 1
        assert json.loads(ending.text)["error"]["code"] == "worker_crashed"


def test_a_chat_without_stream_whose_worker_crashes_gets_503(http: httpx.Client) -> None:
    response = http.post("/v1/chat/completions", json=ask("crash"))

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "worker_crashed"
    assert http.post("/v1/chat/completions", json=ask("and again")).status_code == 200


def test_an_error_in_mid_stream_leaves_the_worker_alone(http: httpx.Client, live_server: ServerProcess) -> None:
    before = live_server.worker_pids()

    response = http.post("/v1/chat/completions", json=ask("fail", stream=True))

    last = json.loads(_events(response.text)[-1])
    assert last["error"]["code"] == "overloaded" and last["error"]["message"] == "as the script says"
    assert live_server.worker_pids() == before
