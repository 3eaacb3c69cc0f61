"""Finding a CUDA compiler, with a stand-in for nvcc."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import llama_cpp_build
from scripts.environment import gpu_models
from scripts.llama_cpp_build import Cuda, find_cuda
from tests.fakes.nvml import H100, L4

NVCC = """#!{python}
import pathlib, sys
if "--version" in sys.argv:
    print("Cuda compilation tools, release 12.8, V12.8.93")
    sys.exit(0)
host = sys.argv[sys.argv.index("-ccbin") + 1] if "-ccbin" in sys.argv else ""
assert "kernel<<<1, 1>>>" in next(pathlib.Path(each).read_text() for each in sys.argv if each.endswith(".cu"))
sys.exit(0 if host in {accepted!r} else "unsupported GNU version")
"""

Install = Callable[..., Path]


@pytest.fixture
def install_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put an nvcc on PATH that compiles with these hosts only; the empty one is its own choice."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(llama_cpp_build, "_CUDA_FOLDER", "/nowhere")

    def install(*accepted: str) -> Path:
        nvcc = tmp_path / "nvcc"
        nvcc.write_text(NVCC.format(python=sys.executable, accepted=accepted))
        nvcc.chmod(0o755)
        return nvcc

    return install


def test_gpus_and_a_compiler_make_a_cuda_build(install_nvcc: Install) -> None:
    nvcc = install_nvcc("")

    found = find_cuda([H100, L4], ["/bin/clang++"], note=pytest.fail)

    assert found == Cuda(str(nvcc), "12.8", (H100.name, L4.name), ("89", "90"), "")


def test_another_host_is_taken_where_nvcc_refuses_its_own(install_nvcc: Install) -> None:
    install_nvcc("/bin/g++-13")

    found = find_cuda([H100], ["/bin/clang++-19", "/bin/g++-13"], note=pytest.fail)

    assert found
    assert found.host == "/bin/g++-13"


def test_where_no_host_is_right_the_build_is_for_the_processor(install_nvcc: Install) -> None:
    install_nvcc()
    notes: list[str] = []

    assert find_cuda([H100], ["/bin/clang++-19"], note=notes.append) is None

    assert "cannot compile with /bin/clang++-19" in notes[0]
    assert "make setup" in notes[1]


def test_a_gpu_without_a_compiler_is_told(install_nvcc: Install) -> None:
    notes: list[str] = []

    assert find_cuda([H100], [], note=notes.append) is None

    assert "no nvcc" in notes[0]


def test_without_a_gpu_nothing_is_looked_for(install_nvcc: Install) -> None:
    install_nvcc("")

    assert find_cuda([], [], note=pytest.fail) is None


def test_an_architecture_that_is_not_told_is_left_to_cmake(install_nvcc: Install) -> None:
    install_nvcc("")

    found = find_cuda([replace(H100, compute_capability="[N/A]")], [], note=pytest.fail)

    assert found
    assert found.architectures == ()


def test_the_models_of_cards_are_read_from_the_drivers_files(tmp_path: Path) -> None:
    for number, model in enumerate(("NVIDIA L4", "NVIDIA H100")):
        (tmp_path / f"0000:0{number}").mkdir()
        (tmp_path / f"0000:0{number}" / "information").write_text(f"Model: \t\t {model}\nIRQ: 5\n")

    assert gpu_models(tmp_path) == ["NVIDIA L4", "NVIDIA H100"]
    assert gpu_models(tmp_path / "absent") == []
