from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from server.cli.tune import tune


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models.yaml").write_text(
        "models:\n"
        "  - {id: away, kind: chat, backend: llama_cpp, source: file:away.gguf}\n"
        "  - {id: echo, kind: chat, backend: script, script: [{text: hi}]}\n"
    )


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(tune)
    return CliRunner().invoke(app, arguments)


def test_an_unknown_model_is_exit_code_2_with_the_nearest_name() -> None:
    result = run("awa")

    assert result.exit_code == 2
    assert "model 'awa' is not in models.yaml, which has away, echo; did you mean 'away'?" in result.stderr


def test_models_without_llama_cpp_are_not_tuned() -> None:
    result = run("echo")

    assert result.exit_code == 1
    assert "only GGUF chat is tuned" in result.stderr


def test_missing_weights_are_told() -> None:
    result = run("away")

    assert result.exit_code == 1
    assert "error: weights are missing: away.gguf does not exist" in result.stderr
