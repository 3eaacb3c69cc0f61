"""What a container's HEALTHCHECK runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import pytest

from tests.deploy.dockerfile import ROOT
from tests.fakes.upstream import Request, plain, upstream_in_thread


def check(port: int) -> subprocess.CompletedProcess[str]:
    environ = {"HEARTH_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, str(ROOT / "deploy/healthcheck.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Busy", 1)])
def test_a_server_is_as_healthy_as_it_says(status: str, code: int) -> None:
    def answer(request: Request) -> Iterable[bytes]:
        return [plain(status if request.path == "/health" else "404 Not Found")]

    with upstream_in_thread(answer) as server:
        assert check(server.port).returncode == code


def test_nobody_there_is_not_healthy() -> None:
    with upstream_in_thread(lambda _: []) as server:
        port = server.port

    done = check(port)

    assert done.returncode == 1
    assert f"http://127.0.0.1:{port}/health" in done.stderr
    assert "Traceback" not in done.stderr
