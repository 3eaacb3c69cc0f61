from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from server.encoders.onnx_graph import read_graph
from server.encoders.onnx_weights import read_classifier
from tests.fakes.onnx_files import NodeSpec, write_onnx

WIDTH, HEADS, HIDDEN, VOCABULARY, POSITIONS = 6, 3, 10, 20, 16
LAYER = "bert.encoder.layer.0"
MATRICES = {
    f"{LAYER}.attention.self.query": (WIDTH, WIDTH),
    f"{LAYER}.intermediate.dense": (WIDTH, HIDDEN),
    f"{LAYER}.output.dense": (HIDDEN, WIDTH),
    "bert.pooler.dense": (WIDTH, WIDTH),
    "classifier": (WIDTH, 1),
}
"""Layers to [inputs, outputs]."""
EMBEDDINGS = {"word": VOCABULARY, "position": POSITIONS, "token_type": 2}

Tensors = dict[str, npt.NDArray[Any]]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def int8_matrix(layer: str, shape: tuple[int, int], random: np.random.Generator) -> tuple[list[NodeSpec], Tensors]:
    """What onnxruntime's quantiser makes of a linear layer. Its name has gone with the matrix, as in real files."""
    weight = f"onnx::MatMul_{abs(hash(layer))}"
    nodes: list[NodeSpec] = [
        ("DynamicQuantizeLinear", [f"{layer}/in"], [f"{layer}/q", f"{layer}/s", f"{layer}/z"]),
        ("Mul", [f"{layer}/s", f"{weight}_scale"], [f"{layer}/scales"]),
        ("MatMulInteger", [f"{layer}/q", f"{weight}_quantized", f"{layer}/z", f"{weight}_zero_point"], [f"{layer}/i"]),
        ("Cast", [f"{layer}/i"], [f"{layer}/f"]),
        ("Mul", [f"{layer}/f", f"{layer}/scales"], [f"{layer}/m"]),
        ("Add", [f"{layer}.bias", f"{layer}/m"], [f"{layer}/out"]),
    ]
    tensors: Tensors = {
        f"{weight}_quantized": random.integers(-128, 128, shape).astype(np.int8),
        f"{weight}_scale": np.array(0.02, np.float32),
        f"{weight}_zero_point": np.array(-7, np.int8),
        f"{layer}.bias": random.normal(size=shape[1]).astype(np.float32),
    }
    return nodes, tensors


def float_matrix(layer: str, shape: tuple[int, int], random: np.random.Generator) -> tuple[list[NodeSpec], Tensors]:
    nodes: list[NodeSpec] = [
        ("MatMul", [f"{layer}/in", f"onnx::{layer}"], [f"{layer}/m"]),
        ("Add", [f"{layer}.bias", f"{layer}/m"], [f"{layer}/out"]),
    ]
    numbers = random.normal(size=shape).astype(np.float32)
    return nodes, {f"onnx::{layer}": numbers, f"{layer}.bias": numbers[0]}


def int8_embedding(name: str, rows: int, random: np.random.Generator) -> tuple[list[NodeSpec], Tensors]:
    weight = f"bert.embeddings.{name}_embeddings.weight"
    nodes: list[NodeSpec] = [
        ("Gather", [f"{weight}_quantized", "ids"], [f"{name}/q"]),
        ("DequantizeLinear", [f"{name}/q", f"{weight}_scale", f"{weight}_zero_point"], [f"{name}/out"]),
    ]
    return nodes, {
        f"{weight}_quantized": random.integers(0, 256, (rows, WIDTH)).astype(np.uint8),
        f"{weight}_scale": np.array(0.01, np.float32),
        f"{weight}_zero_point": np.array(130, np.uint8),
    }


def classifier(random: np.random.Generator, *, matrix: Any = int8_matrix) -> tuple[list[NodeSpec], Tensors]:
    """As much of a one-layer BERT's network as its weights can be told by."""
    query = f"{LAYER}.attention.self.query/out"
    nodes: list[NodeSpec] = [
        *[("Constant", [], [name]) for name in ("any", "heads", "head")],
        ("Concat", ["batch", "any", "heads", "head"], ["shape"]),
        ("Reshape", [query, "shape"], ["split"]),
    ]
    tensors: Tensors = {
        "any": np.array([-1]),
        "heads": np.array([HEADS]),
        "head": np.array([WIDTH // HEADS]),
        "bert.embeddings.LayerNorm.weight": np.ones(WIDTH, np.float32),
        "onnx::other": np.ones(3, np.float32),
    }
    parts = [matrix(layer, shape, random) for layer, shape in MATRICES.items()]
    parts += [int8_embedding(name, rows, random) for name, rows in EMBEDDINGS.items()]
    for more_nodes, more_tensors in parts:
        nodes += more_nodes
        tensors |= more_tensors
    return nodes, tensors


@pytest.mark.parametrize("numbers_in_raw", [True, False])
def test_integer_weights_become_what_they_stand_for(
    tmp_path: Path, random: np.random.Generator, numbers_in_raw: bool
) -> None:
    nodes, tensors = classifier(random)
    write_onnx(tmp_path / "m.onnx", nodes, tensors, numbers_in_raw=numbers_in_raw)

    found = read_classifier(tmp_path / "m.onnx").tensors

    [products] = [node for node in nodes if node[0] == "MatMulInteger" and "intermediate" in node[1][0]]
    expected = (tensors[products[1][1]].astype(np.float32) + 7) * np.float32(0.02)
    np.testing.assert_array_equal(found[f"{LAYER}.intermediate.dense.weight"], expected.T)
    words = tensors["bert.embeddings.word_embeddings.weight_quantized"].astype(np.float32)
    np.testing.assert_allclose(found["bert.embeddings.word_embeddings.weight"], (words - 130) * 0.01, rtol=1e-6)


def test_names_are_those_of_transformers(tmp_path: Path, random: np.random.Generator) -> None:
    write_onnx(tmp_path / "m.onnx", *classifier(random))

    weights = read_classifier(tmp_path / "m.onnx")

    assert set(weights.tensors) == {
        "bert.embeddings.LayerNorm.weight",
        *(f"bert.embeddings.{name}_embeddings.weight" for name in EMBEDDINGS),
        *(f"{layer}.{part}" for layer in MATRICES for part in ("weight", "bias")),
    }
    assert {tensor.dtype for tensor in weights.tensors.values()} == {np.dtype(np.float32)}
    assert weights.shape == {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "num_labels": 1,
    }


def test_float_weights_are_taken_as_they_are(tmp_path: Path, random: np.random.Generator) -> None:
    nodes, tensors = classifier(random, matrix=float_matrix)
    write_onnx(tmp_path / "m.onnx", nodes, tensors)

    found = read_classifier(tmp_path / "m.onnx").tensors["bert.pooler.dense.weight"]

    np.testing.assert_array_equal(found, tensors["onnx::bert.pooler.dense"].T)


@pytest.mark.parametrize("damage", ["garbage", "half", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, random: np.random.Generator, damage: str) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(path, *classifier(random))
    content = path.read_bytes()
    path.write_bytes({"garbage": b"\xff" * 100, "half": content[: len(content) // 2], "empty": b""}[damage])

    with pytest.raises(ValueError, match=r"m\.onnx is not an ONNX file that can be read"):
        read_classifier(path)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    write_onnx(
        tmp_path / "m.onnx", [("MatMul", ["x", "w"], ["y"]), ("Add", ["y", "b"], ["z"])], {"b": np.ones(2, np.float32)}
    )

    with pytest.raises(ValueError, match=r"m\.onnx is not laid out as a BERT with a classifier"):
        read_classifier(tmp_path / "m.onnx")


def test_a_graph_knows_who_makes_and_who_takes_a_tensor(tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx", [("Tanh", ["x"], ["y"]), ("Erf", ["y"], ["z"])], {"w": np.ones(2, np.float32)})

    graph = read_graph(tmp_path / "m.onnx")

    assert graph.producer("y") == graph.nodes[0]
    assert graph.producer("x") is None
    assert graph.consumers("y") == (graph.nodes[1],)
    assert graph.consumers("z") == ()
