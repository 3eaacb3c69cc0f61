"""`hearth serve` as a process: how it starts, how it refuses to, how it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.conftest import RunHearth
from tests.integration.live_models import ask

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


def test_a_taken_port_is_one_line_and_exit_code_1_at_once(
    live_server: ServerProcess, script_config: Path, run_hearth: RunHearth
) -> None:
    port = live_server.url.rpartition(":")[2]
    elapsed = []
    for _ in range(3):  # the fastest counts: the machine may be busy
        started = time.monotonic()
        done = run_hearth("serve", "--config", str(script_config), "--port", port)
        elapsed.append(time.monotonic() - started)

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line and "--port" in line
    assert min(elapsed) < 2


def test_a_wrong_models_yaml_is_exit_code_2_with_file_line_and_key(tmp_path: Path, run_hearth: RunHearth) -> None:
    (tmp_path / "models.yaml").write_text("models:\n  - id: a\n    kind: chatt\n    backend: script\n")

    done = run_hearth("serve")

    assert (done.returncode, done.stdout) == (2, "")
    assert "models.yaml:3: models.a.kind is 'chatt'" in done.stderr
    assert "did you mean 'chat'?" in done.stderr


def test_the_first_line_says_where_it_listens(live_server: ServerProcess) -> None:
    assert f"listens on {live_server.url}" in live_server.hello


def test_workers_die_with_a_server_that_is_killed(script_config: Path, tmp_path: Path) -> None:
    with ServerProcess(script_config, tmp_path / "log") as server:
        server.wait_until_settled()
        (worker,) = server.process.children()

        server.process.kill()

        assert worker.wait(10) is None
