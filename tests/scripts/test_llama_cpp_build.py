from __future__ import annotations

import dataclasses
import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.compilers import Compiler
from scripts.llama_cpp_build import Cuda, Recipe, cuda_for, describe_build, find_wheel, plan_build, provide_wheel
from scripts.steps import SetupError, Steps
from server.bindings.cpu import Cpu
from server.models.file_lock import file_lock

CLANG = Compiler("clang", (19, 1, 7), "/bin/clang-19", "/bin/clang++-19")
GCC_12 = Compiler("gcc", (12, 2, 0), "/bin/gcc", "/bin/g++")
PLAIN = Cpu("plain", frozenset({"avx2"}))
AMX = Cpu("amx", frozenset({"avx2", "amx_int8"}))
H100 = Cuda("/opt/nvcc", "13.0", ("H100",), ("90",))


def plan(compiler: Compiler = CLANG, *, cpu: Cpu = PLAIN, cuda: Cuda | None = None, extra_args: str = "") -> Recipe:
    return plan_build("0.3.36", compiler, cpu=cpu, cuda=cuda, extra_args=extra_args)


def test_the_compiler_is_named_to_cmake() -> None:
    args = plan().cmake_args

    assert args[:2] == ("-DCMAKE_C_COMPILER=/bin/clang-19", "-DCMAKE_CXX_COMPILER=/bin/clang++-19")


def test_amx_is_left_out_only_where_it_would_be_miscompiled() -> None:
    def leaves_amx_out(recipe: Recipe) -> bool:
        return "-DCMAKE_CXX_FLAGS=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" in recipe.cmake_args

    assert leaves_amx_out(plan(GCC_12, cpu=AMX))
    assert not leaves_amx_out(plan(CLANG, cpu=AMX))
    assert not leaves_amx_out(plan(GCC_12, cpu=PLAIN))


def test_cuda_is_built_when_there_is_a_gpu_and_nvcc() -> None:
    assert "-DGGML_CUDA=ON" in plan(cuda=H100).cmake_args
    assert "-DGGML_CUDA=ON" not in plan().cmake_args


def test_an_image_is_built_for_gpus_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.9, V12.9.86'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    cuda = cuda_for(("80", "90"))

    assert cuda == Cuda(str(nvcc), "12.9", (), ("80", "90"))
    assert "-DCMAKE_CUDA_ARCHITECTURES=80;90" in plan(cuda=cuda).cmake_args


def test_an_image_for_gpus_is_not_built_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence would ship an image that computes on the processor."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("scripts.llama_cpp_build._CUDA_FOLDER", str(tmp_path))

    with pytest.raises(SetupError, match="needs nvcc; install the CUDA toolkit"):
        cuda_for(("80", "90"))


def test_cuda_code_is_made_for_the_cards_that_are_there_alone() -> None:
    several = dataclasses.replace(H100, architectures=("86", "90"))
    unknown = dataclasses.replace(H100, architectures=())

    assert "-DCMAKE_CUDA_ARCHITECTURES=86;90" in plan(cuda=several).cmake_args
    assert "-DCMAKE_CUDA_ARCHITECTURES=native" in plan(cuda=unknown).cmake_args


def test_the_users_cmake_args_come_last() -> None:
    assert plan(extra_args="-DGGML_NATIVE=OFF '-DA=b c'").cmake_args[-2:] == ("-DGGML_NATIVE=OFF", "-DA=b c")


def test_equal_recipes_have_one_key_and_it_can_be_read() -> None:
    key = plan().key

    assert key == plan().key
    assert key.startswith("0.3.36-clang-19.1.7-")


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(plan(), version="0.3.37"),
        plan(GCC_12),
        plan(cpu=AMX),
        plan(cpu=dataclasses.replace(PLAIN, model="other")),
        plan(cuda=H100),
        plan(cuda=dataclasses.replace(H100, architectures=("90",))),
        plan(extra_args="-DX=1"),
    ],
)
def test_whatever_changes_the_build_changes_the_key(other: Recipe) -> None:
    assert other.key != plan().key


def test_wheels_for_other_cards_and_toolkits_are_kept_apart() -> None:
    changes: list[dict[str, object]] = [{"architectures": ("86",)}, {"version": "12.9"}, {"host": "/bin/g++-13"}]
    others = [dataclasses.replace(H100, **change) for change in changes]  # type: ignore[arg-type]  # of many types

    assert len({plan(cuda=cuda).key for cuda in (None, H100, *others)}) == 5


def test_ninja_steps_become_a_bar() -> None:
    assert describe_build("  [41/83] /usr/bin/clang-19 -c x.c\n") == f"compiling [{'#' * 14}{'.' * 16}] 41/83"
    assert describe_build("-- Detecting C compiler ABI info\n") is None


def test_a_wheel_in_the_cache_is_used_without_building(tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / plan().key / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()

    assert provide_wheel(plan(), cache=tmp_path, python=Path("/no/python"), steps=Steps(1, io.StringIO())) == wheel


def put_sdist(cache: Path) -> None:
    (cache / "sdist").mkdir(parents=True)
    (cache / "sdist" / "llama_cpp_python-0.3.36.tar.gz").touch()


def put_python(folder: Path, body: str) -> Path:
    """A stand-in for `python -m pip wheel ... --wheel-dir DIR SDIST`; DIR is its eighth argument."""
    python = folder / "python"
    python.write_text(f"#!{sys.executable}\nimport os, pathlib, sys\nout = pathlib.Path(sys.argv[8])\n{body}\n")
    python.chmod(0o755)
    return python


def test_a_built_wheel_moves_into_the_cache_and_nothing_else_stays(tmp_path: Path) -> None:
    put_sdist(tmp_path)
    python = put_python(tmp_path, "out.mkdir(); (out / 'llama_cpp_python-1.whl').write_text(os.environ['CMAKE_ARGS'])")

    wheel = provide_wheel(plan(), cache=tmp_path, python=python, steps=Steps(1, io.StringIO()))

    assert "-DCMAKE_CXX_COMPILER=/bin/clang++-19" in wheel.read_text()
    assert sorted(path.name for path in wheel.parents[1].iterdir()) == [".lock", plan().key, f"{plan().key}.log"]


def test_a_failed_build_leaves_no_wheel_and_shows_its_log(tmp_path: Path) -> None:
    put_sdist(tmp_path)
    python = put_python(tmp_path, "out.mkdir(); (out / 'llama_cpp_python-1.whl').touch(); sys.exit('no such header')")

    with pytest.raises(SetupError, match=r"no such header\n.*failed \(exit 1\); the whole log is /"):
        provide_wheel(plan(), cache=tmp_path, python=python, steps=Steps(1, io.StringIO()))

    assert find_wheel(tmp_path / "wheels" / plan().key) is None


def test_what_an_interrupted_build_left_does_not_disturb_the_next(tmp_path: Path) -> None:
    put_sdist(tmp_path)
    left = tmp_path / "wheels" / "unfinished-x" / "out"
    left.mkdir(parents=True)
    (left / "llama_cpp_python-0-broken.whl").touch()
    python = put_python(tmp_path, "out.mkdir(); (out / 'llama_cpp_python-1.whl').touch()")

    wheel = provide_wheel(plan(), cache=tmp_path, python=python, steps=Steps(1, io.StringIO()))

    assert [path.name for path in wheel.parent.iterdir()] == ["llama_cpp_python-1.whl"]
    assert not left.exists()


def test_a_set_up_waits_for_another_and_takes_its_wheel(tmp_path: Path) -> None:
    is_waiting = threading.Event()

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            if "waiting for another set-up" in text:
                is_waiting.set()
            return len(text)

    with ThreadPoolExecutor() as pool:
        with file_lock(tmp_path / "wheels" / ".lock", on_wait=pytest.fail):
            wheel = pool.submit(
                provide_wheel, plan(), cache=tmp_path, python=Path("/no/python"), steps=Steps(1, Screen())
            )
            assert is_waiting.wait(timeout=30)
            built = tmp_path / "wheels" / plan().key / "llama_cpp_python-1.whl"
            built.parent.mkdir()
            built.touch()

        assert wheel.result(timeout=30) == built
