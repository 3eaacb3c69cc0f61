"""`hearth ps`, `load`, `unload`, `reload` and `logs` against a server that is a function."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from server.cli import loading, logs
from server.cli.main import app

MODEL = {
    "id": "m",
    "kind": "chat",
    "state": "ready",
    "memory_bytes": 412 << 20,
    "context_length": 8192,
    "num_requests": 3,
    "pinned": False,
    "expires_in_s": 240.0,
}
REPORT = {
    "object": "reload",
    "added": ["a"],
    "removed": [],
    "replaced": ["b", "c"],
    "updated": [],
    "unchanged": [],
    "failed": {},
    "kept": [],
    "needs_restart": ["server.port"],
}
Serve = Callable[..., list[str]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Answers in order, the last one for ever; returns the list of what was asked."""

    def with_answers(*bodies: Any, status: int = 200) -> list[str]:
        asked: list[str] = []
        left = list(bodies)

        def handle(request: httpx.Request) -> httpx.Response:
            asked.append(f"{request.method} {request.url.raw_path.decode()}")
            body = left.pop(0) if len(left) > 1 else left[0]
            return httpx.Response(status, json=body)

        http = functools.partial(httpx.Client, transport=httpx.MockTransport(handle))
        monkeypatch.setattr("server.cli.client.httpx.Client", http)
        monkeypatch.setattr(loading, "_LOOK_S", 0)
        monkeypatch.setenv("COLUMNS", "160")
        return asked

    return with_answers


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--url", "http://test"])


def cells(line: str) -> list[str]:
    return [cell for cell in line.strip().split("  ") if cell]


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, ["m", "chat", "ready", "412 MiB", "8192", "3", "in 4 min"]),
        ({"expires_in_s": 42.4}, ["m", "chat", "ready", "412 MiB", "8192", "3", "in 42 s"]),
        ({"expires_in_s": None, "pinned": True}, ["m", "chat", "ready", "412 MiB", "8192", "3", "pinned"]),
        (
            {"state": "loading", "loading": {"fraction": 0.4}, "memory_bytes": None, "context_length": None},
            ["m", "chat", "loading 40%", "3"],
        ),
    ],
)
def test_ps_tells_state_size_use_and_how_long_a_model_stays(
    serve: Serve, changes: dict[str, Any], row: list[str]
) -> None:
    serve({"data": [{**MODEL, **changes}]})

    lines = run("ps").stdout.splitlines()

    assert [cell.strip() for cell in cells(lines[1])] == row


def test_ps_tells_what_a_load_waits_for(serve: Serve) -> None:
    serve({"data": [{**MODEL, "state": "loading", "waiting_for": "model 'm' needs 5.1 GiB"}]})

    assert "m: model 'm' needs 5.1 GiB" in run("ps").stdout


def test_load_waits_until_the_model_is_ready(serve: Serve) -> None:
    asked = serve({**MODEL, "state": "loading"}, {**MODEL, "state": "loading"}, MODEL)

    result = run("load", "m")

    assert asked == ["POST /v1/models/m/load", "GET /v1/models/m", "GET /v1/models/m"]
    assert result.stdout.startswith("m: ready (412 MiB) in ")


def test_a_load_that_fails_is_exit_code_1_with_the_reason(serve: Serve) -> None:
    serve({**MODEL, "state": "failed", "error": "the file is damaged"})

    result = run("load", "m")

    assert result.exit_code == 1
    assert "error: m: failed: the file is damaged" in result.stderr


def test_unload_waits_until_what_runs_has_ended(serve: Serve) -> None:
    gone = {**MODEL, "state": "unloaded", "memory_bytes": None}
    serve({**MODEL, "state": "draining"}, gone)

    result = run("unload", "m")

    assert (result.exit_code, result.stdout.startswith("m: unloaded in ")) == (0, True)


def test_unload_tells_where_requests_have_had_the_model_loaded_again(serve: Serve) -> None:
    serve({**MODEL, "state": "loading", "loading": {"fraction": 0.4}})

    result = run("unload", "m")

    assert result.exit_code == 0
    assert result.stdout.endswith("; requests have had it loaded again: loading 40%\n")


def test_reload_tells_what_has_become_of_each_model(serve: Serve) -> None:
    serve(REPORT)

    result = run("reload")

    assert result.stdout == "added: a\nreplaced: b, c\nin force after a restart: server.port\n"
    assert result.exit_code == 0


def test_a_reload_with_a_model_that_failed_is_exit_code_1(serve: Serve) -> None:
    serve({**REPORT, "failed": {"b": "damaged"}, "kept": ["b"]})

    result = run("reload")

    assert result.exit_code == 1
    assert "error: b (goes on as it was): damaged" in result.stderr


def test_a_reload_of_a_wrong_file_tells_each_line(serve: Serve) -> None:
    serve({"error": {"message": "models.yaml:4: first\nmodels.yaml:9: second"}}, status=400)

    assert run("reload").stderr == "error: models.yaml:4: first\nerror: models.yaml:9: second\n"


def test_logs_are_printed_fit_for_a_terminal(serve: Serve) -> None:
    line = {"number": 7, "at": 0.0, "model": "m", "text": "loaded\x1b[2J"}
    asked = serve({"data": [line], "last": 7})

    result = run("logs", "m", "-n", "5")

    assert asked == ["GET /admin/logs?limit=5&model=m"]
    assert result.stdout.endswith("m: loaded\N{REPLACEMENT CHARACTER}[2J\n")


def test_logs_can_be_followed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve({"data": [], "last": 7})
    waits: Iterator[None] = iter([None])

    def wait(_seconds: float) -> None:
        if next(waits, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr(logs.time, "sleep", wait)
    run("logs", "-f")

    assert asked == ["GET /admin/logs?limit=200", "GET /admin/logs?limit=5000&after=7"]


def test_ps_as_json_is_what_the_server_says(serve: Serve) -> None:
    serve({"data": [MODEL]})

    assert json.loads(run("ps", "--json").stdout) == [MODEL]
