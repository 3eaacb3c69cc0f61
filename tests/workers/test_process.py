from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from server.workers.messages import CRASHED_EXIT_CODE
from server.workers.process import child_environment, last_words
from tests.fakes.scripted import ends_within, scripted, spec_factory


@pytest.mark.parametrize(
    "name", ["HEARTH_API_KEY", "HF_TOKEN", "NVIDIA_API_KEY", "PGPASSWORD", "HTTPS_PROXY", "DATABASE_URL", "MY_PATH"]
)
def test_no_secret_reaches_a_worker(name: str) -> None:
    assert name not in child_environment({name: "x"}, num_threads=1)


def test_a_worker_keeps_what_libraries_need() -> None:
    needed = {"PATH": "/bin", "LC_ALL": "C", "LD_LIBRARY_PATH": "/cuda", "CUDA_VISIBLE_DEVICES": "1", "PYTHONPATH": "."}

    assert child_environment(needed, num_threads=1).items() >= needed.items()


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_how_threads_wait_is_the_operators_choice(name: str) -> None:
    assert child_environment({name: "7"}, num_threads=1)[name] == "7"


def test_a_worker_stays_offline_and_has_bounded_pools() -> None:
    kept = child_environment({"OMP_NUM_THREADS": "64"}, num_threads=3)

    assert (kept["HF_HUB_OFFLINE"], kept["OMP_NUM_THREADS"]) == ("1", "3")


def test_a_worker_sees_the_gpus_of_its_device_only() -> None:
    kept = child_environment({"CUDA_VISIBLE_DEVICES": "4,5"}, num_threads=1, device="cuda:1")
    none = child_environment({"CUDA_VISIBLE_DEVICES": "4,5"}, num_threads=1, device="cpu")

    assert (kept["CUDA_VISIBLE_DEVICES"], kept["CUDA_DEVICE_ORDER"]) == ("5", "PCI_BUS_ID")
    assert none["CUDA_VISIBLE_DEVICES"] == ""


def test_a_gpu_that_ran_out_of_memory_explains_a_death() -> None:
    """What llama.cpp leaves behind: a line of its log, through the worker's JSON, and the abort of ggml."""
    lines = [
        '{"event": "CUDA error: out of memory", "level": "error", "logger": "llama.cpp"}',
        '{"event": "current device: 0, in function alloc at ggml-cuda.cu:503", "level": "error"}',
        "/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:109: CUDA error",
        "Fatal Python error: Aborted",
    ]

    words = last_words(lines)

    assert words.startswith("the GPU has not enough free memory; lower gpu_layers")
    assert words.endswith("(CUDA error: out of memory)")


def test_an_exception_of_torch_explains_a_death() -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\n'
    error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    line = msgspec.json.encode({"event": "worker failed", "exception": trace + error}).decode()

    assert last_words([line]).startswith("the GPU has not enough free memory")


def test_a_worker_whose_parent_died_early_does_not_live_on(tmp_path: Path) -> None:
    """Dead before the worker asked the kernel to be told: all that is left of the parent is a closed pipe."""
    spec = spec_factory(scripted())(f"ipc://{tmp_path}/s")

    command = [sys.executable, "-m", "server.workers.script_worker"]
    ended = subprocess.run(command, input=msgspec.json.encode(spec) + b"\n", timeout=10, check=False)

    assert ended.returncode == CRASHED_EXIT_CODE


PARENT = """
import asyncio
from server.config.server_section import Limits
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import scripted, spec_factory, until

async def main():
    supervisor = Supervisor(Limits())
    client = supervisor.add(scripted(), spec_factory(scripted()))
    supervisor.load("actor")
    await until("ready", client)
    print(supervisor.pid("actor"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed: nothing of it is left to clean up."""
    environ = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not ends_within(pid, 0)

        parent.kill()

        assert ends_within(pid, 5)
