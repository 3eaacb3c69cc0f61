from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from server.cli.tune import tune
from server.encoders.kernel_choice import KernelFinding, KernelTrial
from server.workers.messages import WorkerSpec


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models.yaml").write_text(
        "models:\n"
        "  - {id: away, kind: chat, backend: llama_cpp, source: file:away.gguf}\n"
        "  - {id: gguf, kind: embedding, backend: llama_cpp, source: file:away.gguf}\n"
        "  - {id: ranker, kind: rerank, backend: sentence_transformers, source: file:ranker}\n"
        "  - {id: echo, kind: chat, backend: script, script: [{text: hi}]}\n"
    )


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(tune)
    return CliRunner().invoke(app, arguments)


def test_an_unknown_model_is_exit_code_2_with_the_nearest_name() -> None:
    result = run("awa")

    assert result.exit_code == 2
    assert (
        "model 'awa' is not in models.yaml, which has away, gguf, ranker, echo; did you mean 'away'?" in result.stderr
    )


@pytest.mark.parametrize(
    ("model", "reason"), [("echo", "it computes nothing"), ("gguf", "llama.cpp has one way to run it")]
)
def test_what_has_nothing_to_choose_is_not_tuned(model: str, reason: str) -> None:
    result = run(model)

    assert result.exit_code == 1
    assert reason in result.stderr


@pytest.mark.parametrize(("model", "file"), [("away", "away.gguf"), ("ranker", "ranker")])
def test_missing_weights_are_told(model: str, file: str) -> None:
    result = run(model)

    assert result.exit_code == 1
    assert f"error: weights are missing: {file} does not exist" in result.stderr


FOUND = KernelFinding(
    best="torch-packed-fp16",
    trials=(
        KernelTrial(name="torch-fp32", inputs_per_s=900.4, batch_tokens=4096),
        KernelTrial(
            name="torch-packed-fp16", inputs_per_s=4000, batch_tokens=32_768, against="torch-fp32", difference=3e-6
        ),
        KernelTrial(name="torch-bf16", against="torch-fp32", failure="differs by 0.5, more than 0.001"),
    ),
    took_s=7.5,
    measured_at="2026-11-22T16:00:00Z",
)


@pytest.fixture
def weights_and_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[WorkerSpec]:
    """Put files where the reranker's belong, and a process that has found `FOUND` in the place of the real one."""
    (tmp_path / "ranker").mkdir()
    (tmp_path / "ranker" / "model.onnx").write_bytes(b"weights")
    asked: list[WorkerSpec] = []

    def run_child(command: list[str], *, input: bytes, **_options: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(msgspec.json.decode(input, type=WorkerSpec))
        assert command[-1] == "server.workers.tune_child"
        return subprocess.CompletedProcess(command, 0, msgspec.json.encode(FOUND), b"")

    monkeypatch.setattr(subprocess, "run", run_child)
    return asked


def test_an_encoders_kernels_are_shown_the_best_marked_and_the_failed_explained(
    weights_and_child: list[WorkerSpec], tmp_path: Path
) -> None:
    result = run("ranker")

    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[:4] == [
        ["KERNEL", "INPUTS/S", "BATCH", "DIFFERENCE", "FROM"],
        ["torch-fp32", "900", "4096"],
        ["torch-packed-fp16", "4000", "32768", "3e-06", "torch-fp32", "best"],
        ["torch-bf16", "torch-fp32", "failed"],
    ]
    assert "failed: torch-bf16: differs by 0.5, more than 0.001" in result.stdout
    assert "ranker: torch-packed-fp16; measured in 7.5 s, remembered for the next load" in result.stdout
    [spec] = weights_and_child
    assert spec.tuning_dir is not None and spec.tuning_dir.startswith(str(tmp_path / "cache"))


def test_programs_get_the_finding_as_it_is(weights_and_child: list[WorkerSpec]) -> None:
    assert msgspec.json.decode(run("ranker", "--json").stdout, type=KernelFinding) == FOUND


def test_a_configured_kernel_makes_it_useless_and_that_is_said(
    weights_and_child: list[WorkerSpec], tmp_path: Path
) -> None:
    text = (tmp_path / "models.yaml").read_text().replace("file:ranker", "file:ranker, kernel: exact")
    (tmp_path / "models.yaml").write_text(text)

    assert "kernel is 'exact' in models.yaml: the server takes no notice of it" in run("ranker").stderr
