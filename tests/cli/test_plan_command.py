"""`hearth plan`: with models.yaml alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from server.cli import plan as plan_module
from server.cli.plan import plan
from server.config.schema import ModelConfig
from server.device_needs import DeviceNeed, MemoryEstimate
from server.errors import LoadFailed
from server.models.cache_folder import footprint_folder
from server.models.footprints import Footprint, Footprints


def estimate(config: ModelConfig, weights: Path | None, *, asks_llama_cpp: bool) -> MemoryEstimate:
    """A MiB for weights, and one for each 8 tokens of the context."""
    kv = (config.context or 512) << 17
    need = DeviceNeed(device="cpu", weights=1 << 20 if weights else 0, kv=kv)
    return MemoryEstimate(needs=(need,))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HEARTH_MEMORY_BUDGET_MB", "2000")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(plan_module, "memory_estimator", lambda _settings: estimate)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    configure("{id: small, kind: chat, backend: llama_cpp, source: file:m.gguf, context: 512}")
    return tmp_path


def configure(*models: str) -> None:
    Path("models.yaml").write_text("models:\n" + "".join(f"  - {model}\n" for model in models))


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, arguments)


def test_what_each_model_needs_is_told_in_parts() -> None:
    result = run()

    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if line.startswith("small"))
    assert "at start" in row and "64 MiB" in row and row.rstrip().endswith("fits")
    assert "budget 2.0 GiB (server.memory_budget_mb)" in result.stdout


def test_what_does_not_fit_is_told_with_what_would_make_it_fit() -> None:
    configure("{id: large, kind: chat, backend: llama_cpp, source: file:m.gguf, context: 16384}")

    result = run("--json")

    [model] = json.loads(result.stdout)["models"]
    assert (result.exit_code, model["fits"]) == (1, False)
    assert model["verdict"] == "does not fit into 2.0 GiB; would with context: 8192"
    assert (model["weights_bytes"], model["kv_bytes"], model["vram_bytes"]) == (1 << 20, 2 << 30, 0)


def test_what_was_measured_goes_before_estimates_and_tells_who_goes_for_whom(folder: Path) -> None:
    models = ("first", "second")
    configure(*(f"{{id: {name}, kind: chat, backend: script, script: [{{text: hi}}]}}" for name in models))
    for name in models:
        config = ModelConfig(id=name, kind="chat", backend="script", script=({"text": "hi"},))  # type: ignore[arg-type]  # as YAML has it
        found = Footprint(model_id=name, memory_bytes=1500 << 20, load_s=2.5)
        Footprints(footprint_folder()).remember(config, None, found)

    report = json.loads(run("--json").stdout)

    assert [(model["measured_bytes"], model["last_load_s"]) for model in report["models"]] == [(1500 << 20, 2.5)] * 2
    assert [model["verdict"] for model in report["models"]] == ["fits", "evicts first"]


def test_what_cannot_be_estimated_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> MemoryEstimate:
        raise LoadFailed("the header of m.gguf is broken [at 17]")

    monkeypatch.setattr(plan_module, "memory_estimator", lambda _settings: refuse)

    assert "not known: the header of m.gguf is broken [at 17]" in run().stdout


def test_weights_that_are_not_there_are_unknown() -> None:
    configure("{id: away, kind: chat, backend: llama_cpp, source: file:away.gguf}")

    result = run()

    assert result.exit_code == 0
    assert "not known; run `hearth pull away`" in result.stdout
