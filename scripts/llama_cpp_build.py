"""Build llama-cpp-python for this machine, once per user: flags, cache key, and the wheel in our own cache.

pip would cache the wheel too, but its key knows nothing of compilers and flags; ours names everything the build depends
on, so a second clone sets up in a minute and a changed flag builds anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.compilers import Compiler
from scripts.steps import SetupError, Steps
from server.bindings.cpu import Cpu
from server.bindings.gpu import Gpu
from server.models.file_lock import file_lock

_WITHOUT_COMMON = Path(__file__).resolve().with_name("without_common.cmake")
_CUDA_FOLDER = "/usr/local/cuda/bin"  # where NVIDIA's packages put nvcc, outside of PATH
_NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\] ")
_BAR_WIDTH = 30


@dataclass(frozen=True)
class Cuda:
    """A CUDA compiler and the GPUs to build for.

    Attributes:
        gpus: Those that are here.
        architectures: To build for, as CMake names them, e.g. `90`; empty where the driver does not tell: CMake
            finds out by itself then.
        host: C++ compiler that nvcc is to use; empty: its own choice works.
    """

    nvcc: str
    version: str
    gpus: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    host: str = ""


@dataclass(frozen=True)
class Recipe:
    """Everything that the wheel depends on."""

    version: str
    compiler: Compiler
    cmake_args: tuple[str, ...]
    cpu: Cpu
    cuda: Cuda | None

    @property
    def key(self) -> str:
        """Name of the wheel's folder in the cache: readable first, then a digest of all the rest."""
        parts = (*self.cmake_args, self.cpu.model, *sorted(self.cpu.features), *platform.libc_ver(), str(self.cuda))
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        compiler = str(self.compiler).replace(" ", "-")
        return "-".join([self.version, compiler, *(["cuda"] if self.cuda else []), platform.machine(), digest])


def plan_build(version: str, compiler: Compiler, *, cpu: Cpu, cuda: Cuda | None, extra_args: str = "") -> Recipe:
    """Decide how to configure the build. `extra_args` is the user's own CMAKE_ARGS; it comes last and so wins."""
    args = [
        f"-DCMAKE_C_COMPILER={compiler.c}",
        f"-DCMAKE_CXX_COMPILER={compiler.cxx}",
        "-DGGML_NATIVE=ON",
        "-DLLAVA_BUILD=OFF",  # images; the Python package loads that library only when asked for it
    ]
    if flags := " ".join(compiler.flags_for(cpu)):
        args += [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"]
    if cuda:
        # Code for these cards alone: for all that llama.cpp knows, compiling takes an hour and the library a gigabyte.
        architectures = ";".join(cuda.architectures) or "native"
        args += ["-DGGML_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={cuda.nvcc}", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"]
        args += [f"-DCMAKE_CUDA_HOST_COMPILER={cuda.host}"] if cuda.host else []
    return Recipe(version, compiler, (*args, *shlex.split(extra_args)), cpu, cuda)


def find_cuda(gpus: Sequence[Gpu], hosts: Sequence[str], *, note: Callable[[str], None]) -> Cuda | None:
    """A GPU build needs nvcc, a driver that sees a GPU, and a C++ compiler that nvcc takes; otherwise None.

    Args:
        hosts: C++ compilers to offer it, besides its own choice.
        note: Told what people should know where there is a GPU and no build for it.
    """
    if not gpus:
        return None
    nvcc = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), _CUDA_FOLDER]))
    if not nvcc:
        note("there is a GPU but no nvcc, so this build is for the CPU")
        note("to use the GPU install the CUDA toolkit, then: make setup")
        return None
    host = next((host for host in ("", *hosts) if _compiles(nvcc, host)), None)
    if host is None:
        note(f"{nvcc} cannot compile with {', '.join(hosts) or 'any compiler here'}, so this build is for the CPU")
        note("to use the GPU install a g++ that your CUDA toolkit supports, then: make setup")
        return None
    done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
    release = re.search(r"release (\S+),", done.stdout)
    architectures = sorted({gpu.compute_capability.replace(".", "") for gpu in gpus})
    return Cuda(
        nvcc,
        release[1] if release else "",
        tuple(gpu.name for gpu in gpus),
        tuple(architectures) if all(map(str.isdigit, architectures)) else (),
        host,
    )


def _compiles(nvcc: str, host: str) -> bool:
    """Whether nvcc makes an object of a kernel with this C++ compiler; each release takes a few versions of them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cu")
        source.write_text("#include <vector>\n__global__ void kernel() {}\nint main() { kernel<<<1, 1>>>(); }\n")
        argv = [nvcc, *(["-ccbin", host] if host else []), "-c", str(source), "-o", f"{folder}/probe.o"]
        try:
            return subprocess.run(argv, capture_output=True, timeout=300, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def cuda_for(architectures: tuple[str, ...]) -> Cuda:
    """For an image that other machines run: GPUs of these architectures, which need not be here.

    Raises:
        SetupError: There is no nvcc. Silence would ship an image that computes on the processor.
    """
    nvcc = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), _CUDA_FOLDER]))
    if not nvcc:
        raise SetupError(f"a build for GPUs of {', '.join(architectures)} needs nvcc; install the CUDA toolkit")
    done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
    release = re.search(r"release (\S+),", done.stdout)
    if done.returncode != 0 or not release:
        raise SetupError(f"{nvcc} does not tell its release: {done.stdout}{done.stderr}")
    return Cuda(nvcc, release[1], gpus=(), architectures=architectures)


def provide_wheel(recipe: Recipe, *, cache: Path, python: Path, steps: Steps) -> Path:
    """Return the wheel from the cache, building it first where it is missing. Safe in several clones at once.

    Raises:
        SetupError: The download or the build failed; the log stays beside the wheel's folder.
    """
    folder = cache / "wheels" / recipe.key
    if wheel := find_wheel(folder):
        steps.result = "from the cache"
        return wheel
    note_waiting = partial(steps.note, "waiting for another set-up that is building llama.cpp")
    with file_lock(cache / "wheels" / ".lock", on_wait=note_waiting):
        if wheel := find_wheel(folder):
            steps.result = "built by another set-up meanwhile"
            return wheel
        sdist = _provide_sdist(recipe.version, cache=cache, python=python, steps=steps)
        _build(recipe, sdist, folder, python=python, steps=steps)
    wheel = find_wheel(folder)
    assert wheel is not None
    steps.result = "built"
    return wheel


def find_wheel(folder: Path) -> Path | None:
    """A folder of the cache appears whole, by one rename, so that what is in it can be trusted."""
    return next(folder.glob("llama_cpp_python-*.whl"), None)


def _provide_sdist(version: str, *, cache: Path, python: Path, steps: Steps) -> Path:
    sdist = cache / "sdist" / f"llama_cpp_python-{version}.tar.gz"
    if sdist.exists():
        return sdist
    with _unfinished_folder(sdist.parent) as unfinished:
        options = ["--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(unfinished)]
        steps.run(
            [str(python), "-m", "pip", "download", *options, f"llama-cpp-python=={version}"],
            what="downloading the source (77 MB)",
            log=cache / "sdist" / f"{version}.log",
            describe=lambda _line: None,
        )
        (unfinished / sdist.name).replace(sdist)
    return sdist


def _build(recipe: Recipe, sdist: Path, folder: Path, *, python: Path, steps: Steps) -> None:
    cmake_args = (*recipe.cmake_args, f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={_WITHOUT_COMMON}")
    with _unfinished_folder(folder.parent) as unfinished:
        # pip's own cache would hand out a wheel of the same file that was built with other flags.
        options = ["--verbose", "--no-cache-dir", "--no-deps", "--wheel-dir", str(unfinished / "out")]
        steps.run(
            [str(python), "-m", "pip", "wheel", *options, str(sdist)],
            what="preparing the build",
            log=folder.with_name(f"{folder.name}.log"),
            describe=describe_build,
            env={
                "CMAKE_ARGS": shlex.join(cmake_args),
                "CMAKE_GENERATOR": "Ninja",  # comes by pip; plain make would compile one file at a time
                "TMPDIR": str(unfinished),  # so that a killed build leaves nothing elsewhere
            },
        )
        (unfinished / "out").replace(folder)


def describe_build(line: str) -> str | None:
    """Turn ninja's `[64/140]` into a bar."""
    match = _NINJA_STEP.search(line)
    if not match:
        return None
    done, total = int(match[1]), int(match[2])
    filled = _BAR_WIDTH * done // total
    return f"compiling [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {done}/{total}"


@contextlib.contextmanager
def _unfinished_folder(parent: Path) -> Iterator[Path]:
    """Make a folder to work in, removed on leaving. What killed set-ups left goes first; hold the lock."""
    for left in parent.glob("unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
