from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from server.cli.pull import pull

DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a model that is there, one that is not, and one that needs no weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here.gguf").write_bytes(b"weights")
    (tmp_path / "models.yaml").write_text(
        "models:\n"
        f"  - {{id: here, kind: chat, backend: llama_cpp, source: file:here.gguf, sha256: {DIGEST}, aliases: [h]}}\n"
        "  - {id: away, kind: chat, backend: llama_cpp, source: file:away.gguf}\n"
        "  - {id: echo, kind: chat, backend: script, script: [{text: hi}]}\n"
    )
    return tmp_path


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(pull)
    return CliRunner().invoke(app, arguments)


def test_named_models_are_pulled_once_each() -> None:
    result = run("h", "here", "echo")

    assert result.exit_code == 0
    ready, scripted = result.stdout.splitlines()
    assert ready.startswith(f"here: ready (0.0 MiB, sha256 {DIGEST}) in ")
    assert scripted.startswith("echo: ready (has no weights) in ")


def test_one_failure_does_not_stop_the_others_and_exits_with_1() -> None:
    result = run()

    assert result.exit_code == 1
    assert "here: ready" in result.stdout
    assert "echo: ready" in result.stdout
    assert result.stderr.splitlines()[-1] == "error: 1 of 3 models could not be pulled: away"


def test_unknown_model_exits_with_2_and_the_nearest_name() -> None:
    result = run("hree")

    assert result.exit_code == 2
    assert (
        result.stderr == "error: model 'hree' is not in models.yaml, which has here, away, echo; did you mean 'here'?\n"
    )


def test_wrong_configuration_exits_with_2(folder: Path) -> None:
    (folder / "models.yaml").write_text("models: 1")

    assert run().exit_code == 2
