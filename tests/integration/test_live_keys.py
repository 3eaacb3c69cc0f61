"""Keys that are made and ended beside a running server."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.conftest import RunHearth

pytestmark = pytest.mark.integration

SOON_S = 2.0
"""What docs/security.md promises is a second; a busy machine may take a little longer."""


def wait_for(status: int, url: str, key: str | None = None) -> float:
    """Ask until this is the answer; return how long that took."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    began = time.monotonic()
    while (response := httpx.get(f"{url}/v1/models", headers=headers)).status_code != status:
        assert time.monotonic() - began < SOON_S, f"still {response.status_code}"
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_running_server_follows_what_is_done_to_keys(
    script_config: Path, tmp_path: Path, run_hearth: RunHearth
) -> None:
    def key_command(*arguments: str) -> str:
        done = run_hearth("key", *arguments, "--config", str(script_config))
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ServerProcess(script_config, tmp_path / "log") as server:
        wait_for(200, server.url)
        made = json.loads(key_command("create", "--json", "--tenant", "bakery"))
        wait_for(401, server.url)
        wait_for(200, server.url, made["key"])
        [listed] = json.loads(key_command("list", "--json"))
        key_command("revoke", made["id"])
        wait_for(401, server.url, made["key"])

        assert httpx.get(f"{server.url}/health").status_code == 200
        assert listed["tenant"] == "bakery"
        assert made["key"] not in server.log_text() + json.dumps(listed)
