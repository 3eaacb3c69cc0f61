from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.config.schema import Backend, ModelConfig
from server.encoders.kernel_choice import DeviceBroken
from server.encoders.loading import load_encoder
from server.errors import LoadFailed
from server.types import ModelKind

FindWeights = Callable[[str], tuple[ModelConfig, Path]]


def model(kind: ModelKind = "embedding", backend: Backend = "sentence_transformers") -> ModelConfig:
    return ModelConfig(id="m", kind=kind, backend=backend, source="file:m")


@pytest.fixture
def copy_of(encoder_weights: FindWeights, tmp_path: Path) -> Callable[[str], tuple[ModelConfig, Path]]:
    """Give a default model's files, free to be damaged."""

    def copy(model_id: str) -> tuple[ModelConfig, Path]:
        config, folder = encoder_weights(model_id)
        return config, Path(shutil.copytree(folder, tmp_path / "model"))

    return copy


@pytest.mark.parametrize("kind", ["embedding", "rerank"])
def test_an_absent_gguf_names_the_remedy(kind: ModelKind, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="absent is not a GGUF file; run `hearth pull m`"):
        load_encoder(model(kind, "llama_cpp"), tmp_path / "absent", num_threads=1)


def test_absent_weights_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be loaded: absent is not a folder; run `hearth pull m`"):
        load_encoder(model(), tmp_path / "absent", num_threads=1)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "pytorch_model.bin").touch()

    with pytest.raises(LoadFailed, match=r"2_Dense.pytorch_model\.bin is a pickle"):
        load_encoder(model(), tmp_path, num_threads=1)


@pytest.mark.parametrize("kind", ["embedding", "rerank"])
def test_a_folder_without_weights_is_refused(kind: ModelKind, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="has no weights in safetensors"):
        load_encoder(model(kind), tmp_path, num_threads=1)


def test_a_device_that_a_trial_broke_is_not_the_models_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cannot be loaded is given up; a worker that dies is started again, and leaves the trial out."""

    def break_device(*_arguments: object, **_options: object) -> None:
        raise DeviceBroken("torch-packed-fp16 broke the device")

    monkeypatch.setattr("server.encoders.loading.load_fastest", break_device)
    (tmp_path / "model.safetensors").touch()

    with pytest.raises(DeviceBroken):
        load_encoder(model(), tmp_path, num_threads=1)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("model_id", "name", "reason"),
    [
        ("all-minilm-l6-v2", "model.safetensors", "safetensor|header|invalid"),
        ("all-minilm-l6-v2", "tokenizer.json", ""),
        ("all-minilm-l6-v2", "modules.json", ""),
        ("all-minilm-l6-v2", "config.json", ""),
        ("ms-marco-minilm-l12-v2", "model.onnx", "model.onnx"),
        ("ms-marco-minilm-l12-v2", "tokenizer.json", ""),
    ],
)
@pytest.mark.parametrize("damage", ["garbage", "half"])
def test_damaged_files_fail_the_load_with_a_reason(
    copy_of: FindWeights, model_id: str, name: str, reason: str, damage: str
) -> None:
    config, folder = copy_of(model_id)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(b"\x00garbage" if damage == "garbage" else content[: len(content) // 2])

    with pytest.raises(LoadFailed, match=f"(?i)model '{model_id}' cannot be loaded.*({reason})") as caught:
        load_encoder(config, folder, num_threads=1)
    assert str(folder.parent) not in caught.value.message


@pytest.mark.integration
@pytest.mark.parametrize(
    ("model_id", "name", "reason"),
    [
        ("all-minilm-l6-v2", "modules.json", "has no modules.json"),
        ("all-minilm-l6-v2", "model.safetensors", "no weights in safetensors"),
        ("ms-marco-minilm-l12-v2", "model.onnx", "no weights in safetensors"),
        ("ms-marco-minilm-l12-v2", "tokenizer.json", "has no tokenizer.json"),
    ],
)
def test_missing_files_fail_the_load_with_a_reason(copy_of: FindWeights, model_id: str, name: str, reason: str) -> None:
    config, folder = copy_of(model_id)
    (folder / name).unlink()

    with pytest.raises(LoadFailed, match=reason):
        load_encoder(config, folder, num_threads=1)


@pytest.mark.integration
def test_code_in_the_model_folder_never_runs(copy_of: FindWeights) -> None:
    config, folder = copy_of("all-minilm-l6-v2")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "custom.Module"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "custom.py").write_text("raise SystemExit('code from the model folder ran')")

    with pytest.raises(LoadFailed, match="trust_remote_code"):
        load_encoder(config, folder, num_threads=1)


@pytest.mark.integration
def test_context_above_the_positions_is_refused(encoder_weights: FindWeights) -> None:
    config, folder = encoder_weights("all-minilm-l6-v2")

    with pytest.raises(LoadFailed, match="context is 513 but the model has 512 positions; lower context"):
        load_encoder(config.model_copy(update={"context": 513}), folder, num_threads=1)


@pytest.mark.integration
def test_an_onnx_worker_does_not_import_torch(encoder_weights: FindWeights) -> None:
    config, folder = encoder_weights("ms-marco-minilm-l12-v2")
    program = f"""
import sys
from pathlib import Path
from server.config.schema import ModelConfig
from server.encoders.loading import load_encoder
load_encoder(ModelConfig.model_validate_json({config.model_dump_json()!r}), Path({str(folder)!r}), num_threads=1)
print("torch" in sys.modules)
"""

    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert ended.stdout == "False\n"
