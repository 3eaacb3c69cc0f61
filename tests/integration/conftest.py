"""A real `hearth serve` with real workers, and a way to run the other commands."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from benchmarks.server_process import HEARTH, ServerProcess, environment
from tests.integration.live_models import BROKEN, DEFAULTS, MAX_UPLOAD_MB, RAG, REPOSITORY, SCRIPT, write_broken_weights

RunHearth = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def live_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models.yaml of the live server; the default models are those of the repository, pulled where missing."""
    config = tmp_path_factory.mktemp("live") / "models.yaml"
    # Not tuned: what is tested must not depend on what this machine was measured to be good at.
    limits = {"max_upload_mb": MAX_UPLOAD_MB}
    server = {"port": 0, "weights_dir": str(REPOSITORY / "weights"), "tune": False, "limits": limits}
    models = [*DEFAULTS, SCRIPT, *BROKEN]
    config.write_text(yaml.safe_dump({"server": server, "models": models, "rag": {"models": [RAG]}}))
    names = [model["id"] for model in DEFAULTS]
    subprocess.run([HEARTH, "pull", "--config", str(config), *names], env=environment(), check=True)
    write_broken_weights(config.parent)
    return config


@pytest.fixture(scope="session")
def live_server(live_config: Path) -> Iterator[ServerProcess]:
    """A running server, every model ready or failed. At the end it must stop in good order and leave nobody behind."""
    with ServerProcess(live_config, live_config.with_name("log")) as server:
        server.wait_until_settled()
        yield server
        family = server.process.children(recursive=True)
        assert server.stop() == 0
        _, orphans = psutil.wait_procs(family, timeout=10)
        assert orphans == []


@pytest.fixture
def http(live_server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_server.url, timeout=60) as client:
        yield client


@pytest.fixture
def script_config(tmp_path: Path) -> Path:
    """models.yaml for a server that starts at once: it has the scripted model only."""
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump({"server": {"port": 0}, "models": [SCRIPT]}))
    return config


@pytest.fixture
def run_hearth(tmp_path: Path) -> RunHearth:
    """Run a `hearth` command to its end, in a folder of the test's own."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HEARTH, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
            env=environment(),
        )

    return run
