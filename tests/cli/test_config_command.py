from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from server.cli.config import app

ECHO = "models:\n  - {id: echo, kind: chat, backend: script, script: [{text: hi}]}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.yaml").write_text("server:\n  port: 9000\n" + ECHO)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_check_of_a_right_file_says_what_it_serves(folder: Path) -> None:
    result = run("check")

    assert (result.exit_code, result.stdout) == (0, f"{folder}/models.yaml is right; it serves echo (chat)\n")


def test_check_of_a_wrong_file_exits_with_2_and_a_line_for_each_mistake(folder: Path) -> None:
    (folder / "other.yaml").write_text("server: {prot: 1, host: 2}\n" + ECHO)

    result = run("check", "other.yaml")

    assert result.exit_code == 2
    assert [line[:22] for line in result.stderr.splitlines()] == ["error: other.yaml:1: s"] * 2


def test_check_of_an_absent_file_exits_with_2() -> None:
    result = run("check", "nowhere.yaml")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: nowhere.yaml: the file does not exist")


def test_show_prints_yaml_that_says_the_same(folder: Path) -> None:
    (folder / "shown.yaml").write_text(run("show").stdout)

    assert run("show", "--config", "shown.yaml").stdout == run("show").stdout
    assert yaml.safe_load((folder / "shown.yaml").read_text())["server"]["port"] == 9000


def test_show_origin_proves_the_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_LOG_LEVEL", "debug")

    rows = [line.split() for line in run("show", "--origin", "--host", "::1").stdout.splitlines()]

    assert ["server.host", '"::1"', "flag", "--host"] in rows
    assert ["server.log_level", '"debug"', "HEARTH_LOG_LEVEL"] in rows
    assert ["server.port", "9000", "models.yaml:2"] in rows
    assert ["server.limits.max_body_mb", "32", "default"] in rows


def test_schema_is_json_schema() -> None:
    assert json.loads(run("schema").stdout)["properties"].keys() == {"models", "rag", "server"}
