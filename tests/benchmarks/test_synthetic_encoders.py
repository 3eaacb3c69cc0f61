"""Folders of random weights are ones that sentence-transformers and Hearth load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_encoders import SHAPES, write_synthetic_encoder
from server.config.schema import ModelConfig
from server.encoders.encoder import Texts

TEXTS = ["the quiet river", "a bridge of copper crosses the winter forest. " * 4, "engine"]

pytestmark = pytest.mark.integration


def test_an_embedding_model_is_loaded_and_embeds(tmp_path: Path) -> None:
    from server.encoders.embedder import load_embedder

    write_synthetic_encoder(tmp_path / "m", SHAPES["tiny"])
    config = ModelConfig.model_validate(
        {"id": "m", "kind": "embedding", "backend": "sentence_transformers", "source": f"file:{tmp_path / 'm'}"}
    )

    embedder = load_embedder(tmp_path / "m", config, kernel="torch-fp32", num_threads=1, details={})

    vectors = embedder.forward(embedder.tokenize(Texts(TEXTS)))
    assert vectors.shape == (3, 64)
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3


def test_a_reranker_is_loaded_by_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    write_synthetic_encoder(tmp_path / "m", SHAPES["tiny-reranker"])

    scores = CrossEncoder(str(tmp_path / "m"), device="cpu").predict(
        [("river", text) for text in TEXTS], show_progress_bar=False
    )

    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    write_synthetic_encoder(tmp_path / "m", SHAPES["tiny"])
    before = (tmp_path / "m" / "model.safetensors").stat().st_mtime_ns

    write_synthetic_encoder(tmp_path / "m", SHAPES["tiny"])

    assert (tmp_path / "m" / "model.safetensors").stat().st_mtime_ns == before
