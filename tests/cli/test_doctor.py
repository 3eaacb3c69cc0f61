from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from server.cli.doctor import doctor, is_hearth

app = typer.Typer()
app.command()(doctor)

SCRIPTED = "models: [{id: echo, kind: chat, backend: script, script: [{text: hi}]}]\nserver: {port: 0}\n"
MISSING = "models: [{id: qwen, kind: chat, backend: llama_cpp, source: 'file:absent.gguf'}]\nserver: {port: 0}\n"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_wrong_comes_with_its_remedy_and_exit_code_1() -> None:
    Path("models.yaml").write_text(MISSING)

    result = CliRunner().invoke(app, [])

    assert result.exit_code == 1
    line = next(line for line in result.stdout.splitlines() if line.startswith("model qwen: "))
    assert line.endswith("absent.gguf does not exist — put the file there, or correct `source`")


def test_json_says_for_each_finding_whether_it_is_ok() -> None:
    Path("models.yaml").write_text(SCRIPTED)

    result = CliRunner().invoke(app, ["--json"])

    report = json.loads(result.stdout)
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert report["ok"] is (result.exit_code == 0)
    assert findings["self-test"]["ok"]
    assert findings["port"] == {"name": "port", "value": "a free one is taken at start", "remedy": "", "ok": True}


def test_a_wrong_configuration_is_exit_code_2() -> None:
    Path("models.yaml").write_text("models: []\n")

    assert CliRunner().invoke(app, []).exit_code == 2


@pytest.mark.parametrize(
    ("body", "expected"), [(b'{"version": "0.1.0"}', True), (b"{}", False), (b"5", False), (b"<html>", False)]
)
def test_a_hearth_is_told_by_its_version(body: bytes, *, expected: bool) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.handle_request)
        thread.start()
        found = is_hearth(f"127.0.0.1:{running.server_port}")
        thread.join()

    assert found is expected


@pytest.mark.parametrize("address", ["127.0.0.1:1", "not a host:80", "\x00:80"])
def test_where_nobody_answers_is_no_hearth(address: str) -> None:
    assert not is_hearth(address)


def test_check_index_looks_at_the_data_directory_only() -> None:
    Path("models.yaml").write_text(SCRIPTED)

    result = CliRunner().invoke(app, ["--check-index", "--json"])

    [finding] = json.loads(result.stdout)["findings"]
    assert (result.exit_code, finding["name"], finding["ok"]) == (0, "data", True)
    assert finding["value"].startswith("nothing is stored yet")


def test_check_index_finds_a_database_that_is_none() -> None:
    Path("models.yaml").write_text(SCRIPTED)
    Path("data").mkdir()
    Path("data/hearth.sqlite").write_bytes(b"no database" * 100)

    result = CliRunner().invoke(app, ["--check-index", "--json"])

    [finding] = json.loads(result.stdout)["findings"]
    assert (result.exit_code, finding["name"], finding["ok"]) == (1, "data", False)
    assert "cannot be read" in finding["value"]
