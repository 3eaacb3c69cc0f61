"""Make `.venv` from a clone: interpreter, compiler, llama-cpp-python, packages, self-test. Steps check before they act.

`.venv/hearth-setup.stamp` is written last and names all that the environment was made from; while it matches, set-up is
one hash. `.venv/hearth-build.json` (see `server/bindings/build_info.py`) tells workers of it.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.compilers import DEBIAN_PACKAGES, Compiler, can_apt_install, choose_compiler
from scripts.llama_cpp_build import Cuda, Recipe, cuda_for, find_cuda, plan_build, provide_wheel
from scripts.steps import SetupError, Steps
from server.bindings.build_info import FILE_NAME, BuildInfo, load_build_info, save_build_info
from server.bindings.cpu import read_cpu
from server.bindings.gpu import read_gpus
from server.bindings.self_test import SelfTest, run_self_test
from server.models.cache_folder import cache_folder
from server.models.file_lock import file_lock

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "hearth-setup.stamp"

_MADE_FROM = ("pyproject.toml", "constraints.txt", "scripts/setup", "scripts/*.py", "scripts/*.cmake")


@dataclass(frozen=True)
class Wanted:
    """What the environment is for. The default is a clone that is worked in, on the machine that runs it.

    Attributes:
        is_serving: Without what tests need, and with the package copied into .venv, which then is all there is to ship.
        cuda_architectures: Compute capabilities to build for, as CMake names them; empty: those of the GPUs here.
    """

    is_serving: bool = False
    cuda_architectures: tuple[str, ...] = ()


def main() -> int:
    """Set up what is missing. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/setup", description="Make or complete .venv, ready to run hearth.")
    parser.add_argument("--again", action="store_true", help="check every step even if nothing has changed")
    parser.add_argument("--serving", action="store_true", help="for images: no tests, and a copy of the package")
    parser.add_argument(
        "--cuda-architectures",
        type=lambda text: tuple(filter(None, text.split(";"))),
        default=(),
        metavar="LIST",
        help="for images: build for these GPUs, which need not be here, e.g. '80;90'",
    )
    arguments = parser.parse_args()
    wanted = Wanted(is_serving=arguments.serving, cuda_architectures=arguments.cuda_architectures)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended too
    try:
        if arguments.again or not is_up_to_date(wanted):
            note_waiting = partial(print, "waiting for another set-up of this clone", flush=True)
            with file_lock(ROOT / "build" / "setup.lock", on_wait=note_waiting):
                if arguments.again or not is_up_to_date(wanted):
                    set_up(wanted)
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up was interrupted; run it again and it goes on from there", file=sys.stderr)
        return 130
    return 0


def is_up_to_date(wanted: Wanted) -> bool:
    return STAMP.exists() and STAMP.read_text() == fingerprint(wanted)


def fingerprint(wanted: Wanted = Wanted()) -> str:
    """Digest of all that the environment depends on and that may change. Starts no process: this runs every time."""
    digest = hashlib.sha256()
    for pattern in _MADE_FROM:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    cpu = read_cpu()
    tools = (shutil.which("nvcc"), shutil.which("nvidia-smi"))
    machine = (cpu.model, *sorted(cpu.features), *platform.libc_ver(), *tools, *gpu_models())
    digest.update(repr((str(ROOT), interpreter(), machine, os.environ.get("CMAKE_ARGS"), wanted)).encode())
    return digest.hexdigest()


def gpu_models(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Names of the NVIDIA GPUs, as the driver's files tell them: to ask nvidia-smi would take its time every time."""
    texts = [path.read_text(errors="replace") for path in sorted(folder.glob("*/information"))]
    return [match[1] for text in texts for match in re.finditer(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE)]


def interpreter() -> str:
    """Name this Python so that a security update, which keeps .venv working, does not change the name."""
    return f"{sys.implementation.cache_tag} {Path(sys.executable).resolve()}"


def set_up(wanted: Wanted) -> None:
    steps = Steps(6)
    started = time.monotonic()
    STAMP.unlink(missing_ok=True)
    with steps.step("virtual environment .venv"):
        make_venv(steps)
    with steps.step("compiler"):
        compiler = pick_compiler(steps)
    with steps.step("GPU"):
        cuda = pick_cuda(wanted, compiler, steps)
    recipe = plan_build(
        pinned_version("llama-cpp-python"),
        compiler,
        cpu=read_cpu(),
        cuda=cuda,
        extra_args=os.environ.get("CMAKE_ARGS", ""),
    )
    with steps.step(f"llama-cpp-python {recipe.version}, compiled for this machine"):
        wheel = provide_wheel(recipe, cache=cache_folder(), python=PYTHON, steps=steps)
    with steps.step("python packages"):
        install_packages(wheel, steps, is_serving=wanted.is_serving, has_cuda=cuda is not None)
    with steps.step("self-test"):
        info = record_of(recipe, wheel, check_build(steps))
        save_build_info(info, VENV)
    STAMP.write_text(fingerprint(wanted))
    print(f"ready in {time.monotonic() - started:.1f} s: {summarise(info)}")


def make_venv(steps: Steps) -> None:
    """Make .venv, or keep one that was made whole, here, by this very interpreter."""
    identity = f"{interpreter()}\n{VENV}\n"
    made = VENV / "hearth-venv.txt"
    if made.exists() and made.read_text() == identity and PYTHON.exists():
        steps.result = "present"
        return
    if importlib.util.find_spec("ensurepip") is None:  # Debian cuts it out of python3
        package = f"python3.{sys.version_info.minor}-venv"
        if not can_apt_install():
            raise SetupError(f"this python cannot make virtual environments; as root run: apt-get install {package}")
        apt_install([package], steps)
    steps.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        what="making .venv",
        log=cache_folder() / "venv.log",
        describe=lambda _line: None,
    )
    made.write_text(identity)
    steps.result = f"made with python {platform.python_version()}"


def pick_compiler(steps: Steps) -> Compiler:
    def install() -> bool:
        if not can_apt_install():
            return False
        try:
            apt_install(DEBIAN_PACKAGES, steps)
        except SetupError as error:
            steps.note(f"{error}; going on with what there is")
            return False
        return True

    compiler = choose_compiler(os.environ["PATH"], cpu=read_cpu(), note=steps.note, install=install)
    steps.result = f"{compiler} ({compiler.c})"
    return compiler


def pick_cuda(wanted: Wanted, compiler: Compiler, steps: Steps) -> Cuda | None:
    gpus = read_gpus()
    if wanted.cuda_architectures:
        cuda: Cuda | None = cuda_for(wanted.cuda_architectures)
    else:
        cuda = find_cuda(gpus, [compiler.cxx, "g++"], note=steps.note)
    if cuda is None:
        steps.result = "none" if not gpus else "not used"
    else:
        architectures = ", ".join(cuda.architectures) or "found by CMake"
        steps.result = f"{', '.join(cuda.gpus) or 'none here'}; CUDA {cuda.version}, architecture {architectures}"
    return cuda


def apt_install(packages: Sequence[str], steps: Steps) -> None:
    steps.note(f"installing {' '.join(packages)} with apt-get")
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        steps.run(
            ["apt-get", *arguments],
            what=f"apt-get {arguments[0]}",
            log=cache_folder() / f"apt-{arguments[0]}.log",
            describe=lambda line: line.strip() if line.startswith(("Get:", "Unpacking", "Setting up")) else None,
            env={"DEBIAN_FRONTEND": "noninteractive"},
        )


def install_packages(wheel: Path, steps: Steps, *, is_serving: bool, has_cuda: bool) -> None:
    """Install our wheel, unless it is there already, then the project and the pinned rest."""
    if load_build_info(VENV).wheel_sha256 != sha256_of(wheel):
        # The record goes first: if this is interrupted, nothing claims to know what is installed.
        (VENV / FILE_NAME).unlink(missing_ok=True)
        pip(["--force-reinstall", "--no-deps", str(wheel)], "installing llama-cpp-python", steps)
    # only-binary: pip must take the wheel that is installed now, and never build its own.
    extras = ",".join([*([] if is_serving else ["dev"]), *(["gpu"] if has_cuda else [])])
    project = f"{ROOT}[{extras}]" if extras else str(ROOT)
    options = [] if is_serving else ["--editable"]
    pip(["--only-binary", "llama-cpp-python", *options, project], "installing packages", steps)
    steps.result = "installed"


def pip(arguments: list[str], what: str, steps: Steps) -> None:
    steps.run(
        [str(PYTHON), "-m", "pip", "install", "--constraint", str(ROOT / "constraints.txt"), *arguments],
        what=what,
        log=VENV / "hearth-pip.log",
        describe=describe_pip,
        env={"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )


def describe_pip(line: str) -> str | None:
    match = re.match(r"\s*(Collecting|Downloading|Installing) (\S+)", line)
    if match is None:
        return None
    return "unpacking" if match[1] == "Installing" else f"{match[1].lower()} {match[2]}"


def check_build(steps: Steps, run: Callable[..., SelfTest] = run_self_test) -> SelfTest:
    """Decode in a child; where only AMX and repacked weights crash, the build is kept and runs without them.

    Raises:
        SetupError: llama.cpp does not run at all.
    """
    test = run(python=PYTHON)
    steps.result = "ok" if test.is_ok else test.outcome
    if test.is_ok:
        return test
    steps.note(test.detail)
    plain = run(python=PYTHON, use_extra_bufts=False)
    if not plain.is_ok:
        raise SetupError(f"the llama.cpp that was built here does not run: {plain.detail}")
    steps.note("with AMX and repacked weights switched off it runs, slower; workers will use it that way")
    return test


def record_of(recipe: Recipe, wheel: Path, test: SelfTest) -> BuildInfo:
    return BuildInfo(
        llama_cpp_version=recipe.version,
        compiler=recipe.compiler.c,
        compiler_version=str(recipe.compiler),
        cmake_args=recipe.cmake_args,
        cpu_model=recipe.cpu.model,
        cpu_features=recipe.cpu.notable_features,
        cuda=recipe.cuda is not None,
        self_test=test.outcome,
        use_extra_bufts=test.is_ok,
        wheel_sha256=sha256_of(wheel),
        built_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def summarise(info: BuildInfo) -> str:
    target = "GPU and CPU" if info.cuda else "CPU"
    kernels = ", ".join(info.cpu_features) or "no special instructions"
    return f"llama.cpp by {info.compiler_version} for {target} ({kernels}); self-test {info.self_test}"


def pinned_version(package: str) -> str:
    """Read a version from constraints.txt, the one place where it is written."""
    match = re.search(rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if match is None:
        raise SetupError(f"constraints.txt does not pin {package}; restore its line")
    return match[1]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
