from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from server.encoders.folder_estimate import TORCH_PROCESS_BYTES, estimate_folder, tensor_shapes
from server.errors import LoadFailed

CONFIG = {"hidden_size": 8, "intermediate_size": 32}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A matrix of 800 numbers, embeddings of 1,600, a bias of 8; stored in half precision."""
    tensors = {"embeddings.word": (200, 8), "layer.0.dense": (100, 8), "layer.0.bias": (8,)}
    save_file({name: np.zeros(shape, np.float16) for name, shape in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.mark.parametrize(
    ("kernel", "weights"),
    [
        ("torch-fp32", 4 * 2408),
        ("torch-fp16", 2 * 2408),
        ("torch-packed-bf16", 2 * 2408),
        ("torch-mixed-bf16", 2 * 800 + 4 * 1608),
    ],
)
def test_weights_take_what_the_kernel_keeps_them_in(folder: Path, kernel: str, weights: int) -> None:
    estimate = estimate_folder(folder, kernel=kernel, device="cpu", batch_tokens=10)  # type: ignore[arg-type]

    assert estimate.of("cpu").weights == weights


def test_a_batch_takes_memory_by_its_tokens(folder: Path) -> None:
    small, large = (
        estimate_folder(folder, kernel="torch-fp32", device="cpu", batch_tokens=tokens).of("cpu")
        for tokens in (100, 300)
    )

    assert large.compute == 3 * small.compute == 3 * 100 * 4 * (8 * 8 + 2 * 32)
    assert large.runtime == TORCH_PROCESS_BYTES


def test_on_a_gpu_the_machine_keeps_the_libraries_only(folder: Path) -> None:
    estimate = estimate_folder(folder, kernel="torch-fp16", device="cuda:1", batch_tokens=100, caches=7)

    own, card = estimate.needs
    assert (own.device, own.weights, own.compute) == ("cpu", 0, 0)
    assert (card.device, card.weights) == ("cuda:1", 2 * 2408)
    assert estimate.caches == 7


def test_an_onnx_file_takes_its_size(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(1000))

    assert estimate_folder(tmp_path, kernel="onnx", device="cpu", batch_tokens=1).of("cpu").weights == 1000


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="has no weights in safetensors"):
        tensor_shapes(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, b"\x05\0\0\0\0\0\0\0hello", b"\x02\0\0\0\0\0\0\0[]"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)

    with pytest.raises(LoadFailed, match=r"model\.safetensors has a damaged header"):
        tensor_shapes(tmp_path)
