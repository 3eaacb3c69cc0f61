"""`hearth serve` where it cannot: one line, exit code 1, and nothing was started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from server.storage.data_lock import data_lock

ROOT = Path(__file__).parents[2]
SCRIPT = {"id": "script", "kind": "chat", "backend": "script", "script": [{"text": "hi"}]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"server": {"port": 0}, "models": [SCRIPT]}))
    return path


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from server.cli.main import main; main()", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_data_directory_that_another_server_holds(config: Path) -> None:
    folder = config.parent / "data"
    with data_lock(folder):
        done = serve(config)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: data_dir {folder} is in use by another server (process {os.getpid()}); stop it, or name another one\n"
    )


def test_a_data_directory_that_cannot_be_written(config: Path) -> None:
    (config.parent / "data").write_text("in the way")

    done = serve(config)

    assert (done.returncode, done.stdout) == (1, "")
    assert f"data_dir {config.parent / 'data'} cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
