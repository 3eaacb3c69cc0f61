"""`kill -9` of the whole server during ingestion, again and again: nothing that was acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ingest_kill import KillTest
from tests.fakes import gguf_encoders
from tests.integration.live_models import EMBEDDING, REPOSITORY

pytestmark = pytest.mark.integration

ROUNDS = 20


@pytest.mark.usefixtures("live_config")  # which pulls the weights
def test_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    weights = tmp_path / "minilm.gguf"
    gguf_encoders.write_minilm(weights, REPOSITORY / "weights" / EMBEDDING / "model")
    # llama.cpp loads it in a fraction of the time that torch takes to start.
    model = {"id": "minilm", "kind": "embedding", "backend": "llama_cpp", "source": f"file:{weights}"}
    test = KillTest(tmp_path, model, weights_dir=tmp_path, seed=5)

    test.run(ROUNDS)

    assert test.findings.problems == {"lost": [], "returned": [], "wrong": [], "stuck": [], "orphans": []}
    assert len(test.ledger.completed) >= ROUNDS  # it did work in between
