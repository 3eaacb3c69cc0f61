"""The hub here is a small server that speaks the few calls that huggingface_hub makes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from fake_wheel import gguf_model

from server.errors import WeightsError
from server.models.progress import Progress
from server.models.pull import pull
from server.models.weights import WeightsStore

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"graph",
    "onnx/setup.py": b"code",
    "q/m-00001-of-00002.gguf": b"one",
    "q/m-00002-of-00002.gguf": b"two",
}


class FakeHub(ThreadingHTTPServer):
    """Repository `o/r` with `FILES`. Keeps what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fetched: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        name = path.removeprefix(f"/o/r/resolve/{COMMIT}/")
        if path == "/api/models/o/r/revision/main":
            self._send(200, json.dumps({"id": "o/r", "sha": COMMIT}).encode())
        elif path.startswith(f"/api/models/o/r/tree/{COMMIT}"):
            tree = [{"type": "file", "path": file, "size": len(FILES[file]), "oid": _etag(file)} for file in FILES]
            self._send(200, json.dumps(tree).encode())
        elif name in FILES:
            if self.command == "GET":
                self.server.fetched.append(name)
            self._send(200, FILES[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(name)}"'})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


def _etag(name: str) -> str:
    return hashlib.sha1(FILES[name]).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        urls = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
        monkeypatch.setattr(
            huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + urls[urls.index("/{") :]
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()


def files_of(store: WeightsStore) -> dict[str, bytes]:
    folder = store.weights_dir / "m"
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".hearth.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_repository_is_fetched_without_pickles_and_code(hub: FakeHub, store: WeightsStore) -> None:
    status = pull(gguf_model("hf:o/r"), store)

    names = set(FILES) - {"pytorch_model.bin", "onnx/setup.py"}
    assert files_of(store) == {f"r/{name}": FILES[name] for name in names}
    assert status.path == store.weights_dir / "m/r"
    assert set(hub.fetched) == names


def test_folder_of_a_repository_lies_under_its_own_name(hub: FakeHub, store: WeightsStore) -> None:
    pull(gguf_model("hf:o/r#onnx"), store)

    assert files_of(store) == {"onnx/model.onnx": b"graph"}


def test_split_gguf_is_fetched_whole(hub: FakeHub, store: WeightsStore) -> None:
    status = pull(gguf_model("hf:o/r#q/m-00001-of-00002.gguf"), store)

    assert files_of(store) == {"m-00001-of-00002.gguf": b"one", "m-00002-of-00002.gguf": b"two"}
    assert status.path == store.weights_dir / "m/m-00001-of-00002.gguf"


def test_download_reports_its_bytes(hub: FakeHub, store: WeightsStore) -> None:
    seen: list[Progress] = []

    pull(gguf_model("hf:o/r#model.safetensors"), store, on_progress=seen.append)

    assert Progress("downloading", 7000, 7000) in seen


def test_what_is_in_the_hub_cache_needs_no_network(
    hub: FakeHub, store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(gguf_model("hf:o/r#onnx"), store)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    other = WeightsStore(store.weights_dir.with_name("other"), store.cache_dir)
    assert pull(gguf_model("hf:o/r#onnx"), other).state == "ready"
    with pytest.raises(WeightsError, match=r"cannot fetch hf:o/r#model.safetensors: .*; check the name, the network"):
        pull(gguf_model("hf:o/r#model.safetensors"), store)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:o/nothing", "cannot fetch hf:o/nothing: "),
        ("hf:o/r@nowhere", "cannot fetch hf:o/r@nowhere: "),
        ("hf:o/r#nothing.gguf", "hf:o/r#nothing.gguf has no file that matches nothing.gguf, "),
    ],
)
def test_absent_repository_revision_or_path_is_an_error(
    hub: FakeHub, store: WeightsStore, source: str, message: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        pull(gguf_model(source), store)

    assert caught.value.message.startswith(message)
    assert files_of(store) == {}
