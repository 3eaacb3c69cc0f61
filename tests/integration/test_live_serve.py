"""`hearth serve` as a process: how it starts, how it refuses to, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.server_process import ServerProcess
from tests.integration.conftest import RunHearth
from tests.integration.live_models import SCRIPT, ask

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_lets_running_streams_finish_and_ends_with_0(
    script_config: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    with ServerProcess(script_config, tmp_path / "log") as server:
        text = _stream_and_interrupt(server, lambda: server.process.send_signal(stop))

        assert "ten" in text and text.endswith("data: [DONE]\n\n")
        assert server.process.wait(10) == 0


def test_a_signal_to_the_whole_process_group_lets_running_streams_finish_too(
    script_config: Path, tmp_path: Path
) -> None:
    """That is what systemd sends."""
    with ServerProcess(script_config, tmp_path / "log", own_session=True) as server:
        text = _stream_and_interrupt(server, lambda: os.killpg(server.process.pid, signal.SIGTERM))

        assert text.endswith("data: [DONE]\n\n")
        assert server.process.wait(10) == 0


ENDLESS = {"id": "script", "kind": "chat", "backend": "script", "script": [{"text": "word " * 2000, "delay_ms": 50}]}


@pytest.mark.parametrize(
    ("drain_s", "signals"),
    [(3, [signal.SIGTERM]), (30, [signal.SIGTERM, signal.SIGTERM]), (30, [signal.SIGINT, signal.SIGINT])],
    ids=["drain is over", "second SIGTERM", "second Ctrl-C"],
)
def test_requests_that_are_not_waited_for_end_with_an_error(
    tmp_path: Path, drain_s: int, signals: list[signal.Signals]
) -> None:
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump({"server": {"drain_s": drain_s}, "models": [ENDLESS]}))

    with ServerProcess(config, tmp_path / "log") as server, _unanswered(server) as unanswered:
        started = time.monotonic()
        text = _stream_and_interrupt(server, lambda: _send(server, signals))
        response = unanswered.getresponse()
        took_s = time.monotonic() - started

        last_event = json.loads(text.split("data: ")[-1])
        assert last_event["error"]["code"] == "model_unavailable"
        assert "was stopped" in last_event["error"]["message"]
        assert (response.status, json.load(response)["error"]["code"]) == (503, "model_unavailable")
        assert took_s < 15
        assert server.process.wait(10) == 0


@contextmanager
def _unanswered(server: ServerProcess) -> Iterator[HTTPConnection]:
    """A chat request without stream, sent but not waited for."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(ask("hi")), {"content-type": "application/json"})
        yield connection
    finally:
        connection.close()


def _send(server: ServerProcess, signals: list[signal.Signals]) -> None:
    """Send one signal after the other, each after the one before has taken effect."""
    for number, one in enumerate(signals):
        if number:
            wait_until_draining(server)
        server.process.send_signal(one)


def wait_until_draining(server: ServerProcess) -> None:
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        if httpx.get(f"{server.url}/ready").json()["status"] == "draining":
            return
    raise AssertionError("the server goes on as if nothing had been said")


def _stream_and_interrupt(server: ServerProcess, interrupt: Callable[[], None]) -> str:
    """Text of a slow stream, during which `interrupt` is called."""
    body = ask("slow", stream=True)
    chunks: list[str] = []
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as response:
        for chunk in response.iter_text():
            if not chunks:
                interrupt()
            chunks.append(chunk)
    return "".join(chunks)


def test_a_taken_port_is_one_line_and_exit_code_1(
    live_server: ServerProcess, script_config: Path, run_hearth: RunHearth
) -> None:
    port = live_server.url.rpartition(":")[2]

    done = run_hearth("serve", "--config", str(script_config), "--port", port)

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line and "--port" in line


def test_a_wrong_models_yaml_is_exit_code_2_with_file_line_and_key(tmp_path: Path, run_hearth: RunHearth) -> None:
    (tmp_path / "models.yaml").write_text("models:\n  - id: a\n    kind: chatt\n    backend: script\n")

    done = run_hearth("serve")

    assert (done.returncode, done.stdout) == (2, "")
    assert "models.yaml:3: models.a.kind is 'chatt'" in done.stderr
    assert "did you mean 'chat'?" in done.stderr


def test_the_first_line_says_where_it_listens(live_server: ServerProcess) -> None:
    assert f"listens on {live_server.url}" in live_server.hello


def test_a_killed_server_takes_its_workers_along_and_starts_again_on_its_port(
    script_config: Path, tmp_path: Path
) -> None:
    with ServerProcess(script_config, tmp_path / "log") as server:
        server.wait_until_settled()
        (worker,) = server.process.children()

        server.process.kill()

        assert worker.wait(2) is None  # raises if it still runs
        server.process.wait()

    with ServerProcess(script_config, tmp_path / "log", port=int(server.url.rpartition(":")[2])) as again:
        assert again.url == server.url
        assert httpx.post(f"{again.url}/v1/chat/completions", json=ask("hi"), timeout=30).status_code == 200


def test_a_load_balancer_has_time_to_notice_that_the_server_leaves(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump({"server": {"drain_delay_s": 1.0}, "models": [SCRIPT]}))

    with ServerProcess(config, tmp_path / "log") as server:
        server.wait_until_settled()
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        served = httpx.post(f"{server.url}/v1/chat/completions", json=ask("hi"), timeout=30)

        assert served.status_code == 200
        assert served.headers["connection"] == "close"
        assert server.process.wait(10) == 0


def test_systemd_hears_that_it_is_ready_alive_and_stopping(
    script_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")

        with ServerProcess(script_config, tmp_path / "log") as server:
            heard = [manager.recv(100) for _ in range(3)]
            assert server.stop() == 0
        while heard[-1] != b"STOPPING=1":
            heard.append(manager.recv(100))

    assert heard[:3] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
