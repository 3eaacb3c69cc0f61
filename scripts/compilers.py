"""Choose the C and C++ compiler for llama.cpp.

gcc 12 miscompiles `_tile_loadconfig` (its inline asm declares 8 bytes of input; the other stores are dropped), so on a
CPU with AMX its build dies of SIGILL. gcc >= 13 and clang >= 17 are right; any other builds without AMX.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.steps import SetupError
from server.bindings.cpu import Cpu

Family = Literal["clang", "gcc"]

DEBIAN_PACKAGES = ("clang-19", "libomp-19-dev")
APT_COMMAND = f"apt-get install {' '.join(DEBIAN_PACKAGES)}"

_RIGHT_FROM: dict[Family, int] = {"clang": 17, "gcc": 13}
_KNOWS_AMX_FROM: dict[Family, int] = {"clang": 12, "gcc": 11}
_WITHOUT_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
_NAME = re.compile(r"(clang|gcc)(-\d+)?")
_PROBE = "#include <omp.h>\n#include <vector>\nint main() { return std::vector<int>(omp_get_max_threads()).empty(); }\n"


@dataclass(frozen=True)
class Compiler:
    """A C compiler and its C++ twin."""

    family: Family
    version: tuple[int, ...]
    c: str
    cxx: str

    def __str__(self) -> str:
        return f"{self.family} {'.'.join(map(str, self.version))}"

    @property
    def is_right(self) -> bool:
        """Whether AMX code that it compiles runs."""
        return self.version[0] >= _RIGHT_FROM[self.family]

    def flags_for(self, cpu: Cpu) -> tuple[str, ...]:
        """Flags that keep miscompiled AMX out; older compilers make no AMX code and refuse the flags."""
        miscompiles = self.version[0] >= _KNOWS_AMX_FROM[self.family] and not self.is_right
        return _WITHOUT_AMX if cpu.has_amx and miscompiles else ()


def choose_compiler(path: str, *, cpu: Cpu, note: Callable[[str], None], install: Callable[[], bool]) -> Compiler:
    """Take a right compiler from PATH, else install one, else any that works.

    Args:
        path: Folders to search, as in the variable PATH.
        note: Told what people should know about the choice.
        install: Installs `DEBIAN_PACKAGES` if it can, and says whether it did.

    Raises:
        SetupError: There is none; names the command that installs one.
    """
    found = list(find_compilers(path))
    right = _first_working(filter(lambda compiler: compiler.is_right, found), note)
    if right is None and install():
        found = list(find_compilers(path))
        right = _first_working(filter(lambda compiler: compiler.is_right, found), note)
    compiler = right or _first_working(filter(lambda compiler: not compiler.is_right, found), note)
    if compiler is None:
        raise SetupError(f"no working C and C++ compiler is on PATH; as root run: {APT_COMMAND}")
    if compiler.flags_for(cpu):
        note(
            f"{compiler} miscompiles AMX, so AMX is left out: prompts take up to 5 times as long (Q4_1: 198 tok/s, not"
        )
        note(f"1014), answers up to 2.5 times. For full speed, as root: {APT_COMMAND}; then: make setup")
    return compiler


def find_compilers(path: str) -> Iterator[Compiler]:
    """Yield what is on PATH, best first: clang (what our figures were measured with) before gcc, newest first."""
    found: dict[tuple[Family, tuple[int, ...]], Compiler] = {}
    for folder in map(Path, filter(None, path.split(os.pathsep))):
        if folder.is_dir() and os.access(folder, os.R_OK):
            for c in sorted(folder.iterdir()):
                if _NAME.fullmatch(c.name) and (compiler := _describe(c)):
                    found.setdefault((compiler.family, compiler.version), compiler)
    best_first = sorted(found.values(), key=lambda compiler: compiler.version, reverse=True)
    yield from sorted(best_first, key=lambda compiler: compiler.family != "clang")


def _describe(c: Path) -> Compiler | None:
    cxx = c.with_name(c.name.replace("clang", "clang++").replace("gcc", "g++"))
    if not (os.access(c, os.X_OK) and os.access(cxx, os.X_OK)):
        return None
    banner = _output([str(cxx), "--version"])
    family: Family = "clang" if "clang" in banner else "gcc"  # macOS calls its clang gcc
    version = re.search(r"version (\d+(?:\.\d+)+)" if family == "clang" else r"\) (\d+(?:\.\d+)+)", banner)
    return Compiler(family, tuple(map(int, version[1].split("."))), str(c), str(cxx)) if version else None


def _first_working(compilers: Iterable[Compiler], note: Callable[[str], None]) -> Compiler | None:
    for compiler in compilers:
        if _works(compiler):
            return compiler
        runtime = f"libomp-{compiler.version[0]}-dev" if compiler.family == "clang" else "g++"
        note(f"{compiler} is passed over: it cannot build a C++ program with OpenMP; is {runtime} installed?")
    return None


def _works(compiler: Compiler) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        argv = [compiler.cxx, "-fopenmp", "-x", "c++", "-", "-o", f"{folder}/probe"]
        try:
            return subprocess.run(argv, input=_PROBE.encode(), capture_output=True, check=False).returncode == 0
        except OSError:
            return False


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def can_apt_install() -> bool:
    """Whether we are root on Debian or a descendant."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None
