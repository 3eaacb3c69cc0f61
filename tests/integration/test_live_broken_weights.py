"""Models whose weights are corrupt, truncated or absent: the server starts, says so, and serves the others."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.integration.live_models import CHAT, EMBEDDING, RERANK, ask

pytestmark = pytest.mark.integration

REASONS = {
    "corrupt": "llama.cpp cannot load corrupt.gguf",
    "truncated": "llama.cpp cannot load truncated.gguf",
    "absent": "absent.gguf does not exist",
}


def test_ready_names_the_failed_models_and_why(http: httpx.Client) -> None:
    response = http.get("/ready")

    models = response.json()["models"]
    assert response.status_code == 503
    assert {name for name, model in models.items() if model["state"] == "failed"} == REASONS.keys()
    assert all(reason in models[name]["reason"] for name, reason in REASONS.items())
    assert all(models[name] == {"state": "ready"} for name in (CHAT, EMBEDDING, RERANK, "script"))


@pytest.mark.parametrize("model", REASONS)
def test_a_request_to_a_failed_model_is_told_the_reason(http: httpx.Client, model: str) -> None:
    response = http.post("/v1/chat/completions", json=ask("hi", model))

    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert response.json()["error"]["code"] == "model_unavailable"
    assert REASONS[model] in response.json()["error"]["message"]


def test_no_client_reads_where_the_weights_lie(http: httpx.Client, live_config: Path) -> None:
    asked = [http.get("/ready"), http.get("/v1/models")]
    asked += [http.post("/v1/chat/completions", json=ask("hi", model)) for model in REASONS]

    for response in asked:
        assert str(live_config.parent) not in response.text
        assert not re.search(r"(?<!\w)/(?!v1\b)\w+/", response.text), response.text


def test_the_process_is_healthy_all_the_same(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200
    assert http.get(f"/v1/models/{CHAT}").json()["state"] == "ready"
    assert http.get("/v1/models/corrupt").json()["state"] == "failed"
