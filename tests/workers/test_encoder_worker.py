"""The worker's messages in, its answers out, over a fake encoder."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from server.config.schema import ModelConfig
from server.encoders.encoder import Rows
from server.workers import encoder_worker
from server.workers.encoder_worker import EncoderWorker
from server.workers.messages import Embed, Embedded, FromWorker, RequestFailed, WorkerSpec
from tests.fakes.encoders import FakeEncoder, fake_vector

TIMEOUT_S = 10


class Stage:
    """A worker whose model is a fake; `ask` gives its next message."""

    def __init__(self, encoder: FakeEncoder, config: ModelConfig, folder: Path) -> None:
        self.encoder = encoder
        self._sent: queue.Queue[FromWorker] = queue.Queue()
        spec = WorkerSpec(model_json="", weights_path=str(folder), endpoint="", num_threads=1)
        self.worker = EncoderWorker(config, spec, self._sent.put)

    def ask(self, message: Embed) -> FromWorker:
        self.worker.handle(message)
        return self._sent.get(timeout=TIMEOUT_S)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@contextmanager
def stage(monkeypatch: pytest.MonkeyPatch, weights: Path, cache_file: Path | None = None) -> Iterator[Stage]:
    encoder = FakeEncoder(max_tokens=4)
    monkeypatch.setattr(encoder_worker, "load_encoder", lambda *_, **__: encoder)
    config = ModelConfig(
        id="m", kind="embedding", backend="sentence_transformers", source="file:m", cache_file=cache_file
    )
    made = Stage(encoder, config, weights)
    yield made
    made.worker.stop()
    made.worker.run()


def rows_of(answer: FromWorker) -> Rows:
    assert isinstance(answer, Embedded), answer
    return np.frombuffer(answer.vectors, "<f4").reshape(-1, answer.dimensions)


def test_vectors_have_norm_1_unless_they_are_wanted_as_they_are(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    with stage(monkeypatch, weights) as made:
        scaled = rows_of(made.ask(Embed("s", ["a b c d e"], "mean")))
        pooled = rows_of(made.ask(Embed("p", ["a b c d e"], "mean", normalize=False)))

    mean = (4 * fake_vector("a b c d") + fake_vector("e")) / 5
    np.testing.assert_allclose(pooled[0], mean, rtol=1e-5)
    np.testing.assert_allclose(scaled[0], mean / np.linalg.norm(mean), rtol=1e-5)


def test_too_long_an_input_is_refused(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    with stage(monkeypatch, weights) as made:
        answer = made.ask(Embed("r", ["a b c d e"]))

    assert isinstance(answer, RequestFailed)
    assert answer.error.code == "context_length_exceeded"


def test_what_was_computed_is_told_and_counted(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    with stage(monkeypatch, weights) as made:
        first, again = (made.ask(Embed(request_id, ["a b", "c"])) for request_id in ("first", "again"))
        counts = made.worker.heartbeat().encoded

    assert isinstance(first, Embedded) and isinstance(again, Embedded)
    assert (first.num_cached, again.num_cached) == (0, 2)
    assert counts is not None
    assert (counts.num_items, counts.num_tokens, counts.num_cached_inputs) == (2, 3, 2)


def test_facts_tell_which_model_it_is(monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    with stage(monkeypatch, weights) as made, stage(monkeypatch, weights) as same:
        (weights / "model.safetensors").write_bytes(b"other weights")
        with stage(monkeypatch, weights) as other:
            fingerprints = [each.worker.facts.fingerprint for each in (made, same, other)]

    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_restarted_worker_finds_its_vectors_again(
    monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path: Path
) -> None:
    corpus = [f"text {i}" for i in range(50)]
    with stage(monkeypatch, weights, tmp_path / "vectors.sqlite") as made:
        before = rows_of(made.ask(Embed("first", list(corpus))))

    with stage(monkeypatch, weights, tmp_path / "vectors.sqlite") as made:
        after = rows_of(made.ask(Embed("again", list(corpus))))

    np.testing.assert_array_equal(before, after)
    assert made.encoder.batches == []
