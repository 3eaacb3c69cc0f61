"""A store's life beyond searches, as an operator lives it: another model, another server, a backup, a restore."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.server_process import ServerProcess
from tests.fakes import gguf_encoders
from tests.integration.conftest import RunHearth
from tests.integration.live_models import EMBEDDING, REPOSITORY

pytestmark = pytest.mark.integration

QUESTION = "How long do I knead dough?"


def write_config(folder: Path, *models: str, data_dir: str = "data") -> Path:
    """models.yaml with some of two models that are the same weights, pooled in two ways."""
    folder.mkdir(exist_ok=True)
    config = folder / "models.yaml"
    entries = [
        {"id": name, "kind": "embedding", "backend": "llama_cpp", "source": f"file:{folder.parent / name}.gguf"}
        for name in models
    ]
    server = {"port": 0, "tune": False, "data_dir": data_dir}
    config.write_text(yaml.safe_dump({"server": server, "models": entries}))
    return config


@pytest.fixture
def weights(live_config: Path, tmp_path: Path) -> Path:
    """Folder of the two; `live_config` has pulled what they are made of."""
    assert live_config.exists()
    for pooling, name in ((1, "mean"), (2, "first")):
        folder = REPOSITORY / "weights" / EMBEDDING / "model"
        gguf_encoders.write_minilm(tmp_path / f"{name}.gguf", folder, pooling=pooling)
    return tmp_path


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "bread.md").write_text("# Bread\n\n## Dough\n\nKnead the dough for ten minutes.\n")
    (folder / "garden.md").write_text("# Tomatoes\n\nTomatoes want full sun.\n")
    return folder


def best(run_hearth: RunHearth, server: ServerProcess, store: str) -> str:
    done = run_hearth("search", store, QUESTION, "--url", server.url, "--top", "1")
    return done.stdout + done.stderr


def test_a_store_outlives_its_model_and_its_server(weights: Path, run_hearth: RunHearth, docs: Path) -> None:
    with ServerProcess(write_config(weights / "one", "mean"), weights / "log1") as server:
        server.wait_until_settled()
        assert run_hearth("ingest", str(docs), "--store", "docs", "--url", server.url).returncode == 0
        exported = run_hearth("store", "export", "docs", str(weights / "docs.hearth"), "--url", server.url)
        backed_up = run_hearth("backup", str(weights / "backup"), "--data-dir", str(weights / "one" / "data"))
        assert (exported.returncode, backed_up.returncode) == (0, 0), exported.stderr + backed_up.stderr

    # Another model in its place: the store says so, is embedded anew, and is searched again.
    with ServerProcess(write_config(weights / "one", "first"), weights / "log2") as server:
        server.wait_until_settled()
        assert "hearth reindex vs_" in best(run_hearth, server, "docs")
        assert run_hearth("reindex", "docs", "--url", server.url).stdout.startswith(
            "completed: 2 of 2 chunks, model fi"
        )
        assert "Knead the dough" in best(run_hearth, server, "docs")

    # The file goes to a server of its own, which has the model.
    with ServerProcess(write_config(weights / "two", "mean"), weights / "log3") as server:
        server.wait_until_settled()
        imported = run_hearth("store", "import", str(weights / "docs.hearth"), "--name", "copy", "--url", server.url)
        assert imported.stdout.endswith("copy: 2 documents\n"), imported.stderr
        assert "Knead the dough" in best(run_hearth, server, "copy")

    # The backup is as it was before.
    restored = run_hearth("restore", str(weights / "backup"), "--data-dir", str(weights / "three" / "data"))
    assert restored.returncode == 0, restored.stderr
    config = write_config(weights / "three", "mean")
    assert run_hearth("doctor", "--check-index", "--config", str(config)).returncode == 0
    with ServerProcess(config, weights / "log4") as server:
        server.wait_until_settled()
        assert "Knead the dough" in best(run_hearth, server, "docs")
        [file, *_] = httpx.get(f"{server.url}/v1/files").json()["data"]
        assert httpx.get(f"{server.url}/v1/files/{file['id']}/content").text.startswith("# ")


def test_two_servers_on_one_data_directory(script_config: Path, tmp_path: Path, run_hearth: RunHearth) -> None:
    with ServerProcess(script_config, tmp_path / "log") as server:
        second = run_hearth("serve", "--config", str(script_config))

        assert second.returncode == 1
        assert f"is in use by another server (process {server.process.pid})" in second.stderr
        assert httpx.get(f"{server.url}/v1/vector_stores").status_code == 200
