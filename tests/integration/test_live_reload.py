"""SIGHUP and a running `hearth serve`: another models.yaml, a wrong one, and streams that go on."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.server_process import ServerProcess

pytestmark = pytest.mark.integration


def write(path: Path, *names: str) -> None:
    script = [{"match": "slow", "text": "word " * 40, "delay_ms": 50}, {"text": "hi"}]
    models = [{"id": name, "kind": "chat", "backend": "script", "script": script} for name in names]
    path.write_text(yaml.safe_dump({"server": {"log_format": "json"}, "models": models}))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "models.yaml", "first", "second")
    return tmp_path / "models.yaml"


@pytest.fixture
def server(config: Path) -> Iterator[ServerProcess]:
    with ServerProcess(config, config.parent / "log") as running:
        running.wait_until_settled()
        yield running


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_hangup_puts_the_file_in_force_while_streams_go_on(server: ServerProcess, config: Path) -> None:
    body = {"model": "second", "messages": [{"role": "user", "content": "slow"}], "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        write(config, "first", "third")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: set(server.models()) == {"first", "third"})
        rest = list(lines)

    assert rest[-2] == "data: [DONE]"
    assert sum("word" in line for line in rest) == 40


def test_the_service_manager_hears_of_a_reload(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = config.parent / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        with ServerProcess(config, config.parent / "log") as running:
            running.wait_until_settled()
            running.process.send_signal(signal.SIGHUP)
            heard = [manager.recv(100).decode().split("\n")[0] for _ in range(3)]

    assert heard == ["READY=1", "RELOADING=1", "READY=1"]


def test_a_drain_is_not_disturbed_by_a_hangup(server: ServerProcess, config: Path) -> None:
    body = {"model": "second", "messages": [{"role": "user", "content": "slow"}], "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        write(config, "first")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        server.process.send_signal(signal.SIGHUP)
        rest = list(lines)

    assert server.process.wait(timeout=20) == 0
    assert rest[-2] == "data: [DONE]"
    assert "models.yaml is not reloaded: the server is stopping" in server.log_text()


def test_a_wrong_file_is_logged_and_changes_nothing(server: ServerProcess, config: Path) -> None:
    config.write_text("models:\n  - {id: first, kind: chta, backend: script}\n")

    server.process.send_signal(signal.SIGHUP)
    until(lambda: "models.yaml is wrong and stays as it was" in server.log_text())

    assert f"{config}:2: models.first.kind" in server.log_text()
    assert set(server.models()) == {"first", "second"}
