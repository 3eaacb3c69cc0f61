"""`hearth serve` where it cannot: one line, exit code 1, and nothing was started."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from server.access import key_store
from server.storage.data_lock import data_lock
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from tests.fakes.keys import key_named

ROOT = Path(__file__).parents[2]
SCRIPT = {"id": "script", "kind": "chat", "backend": "script", "script": [{"text": "hi"}]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"server": {"port": 0}, "models": [SCRIPT]}))
    return path


def serve(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from server.cli.main import main; main()", "serve", "--config", str(config), *options],
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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hearth.example"])
def test_what_others_reach_needs_keys(config: Path, host: str) -> None:
    done = serve(config, "--host", host)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{host} may be reached by others, and there are no keys" in done.stderr
    assert "`hearth key create`" in done.stderr and "--allow-insecure" in done.stderr


def test_keys_that_cannot_be_read_are_not_no_keys(config: Path) -> None:
    (config.parent / "data").mkdir()
    (config.parent / "data" / "accounts.sqlite").write_bytes(b"not a database" * 100)

    done = serve(config, "--host", "0.0.0.0")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "accounts.sqlite cannot be read" in done.stderr


@pytest.mark.parametrize("has_key", [True, False], ids=["with a key", "insecure"])
def test_with_keys_or_said_aloud_it_goes_on(config: Path, *, has_key: bool) -> None:
    """As far as to an address that this machine does not have."""
    if has_key:
        database = Database.open(config.parent / "data" / "accounts.sqlite", ACCOUNT_MIGRATIONS)
        asyncio.run(database.write(lambda db: key_store.insert(db, key_named("a")[1])))
        database.close()

    done = serve(config, "--host", "192.0.2.1", *([] if has_key else ["--allow-insecure"]))

    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1" in done.stderr
    assert ("warning: everybody who reaches 192.0.2.1:0 may use this server" in done.stderr) is not has_key
