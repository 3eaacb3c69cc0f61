"""What `hearth doctor` tells: how this installation was built, what the machine has, what is wrong and the remedy.

Prints nothing, loads no model in this process, and works without a running server.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

import server
from server.bindings.build_info import BuildInfo
from server.bindings.cpu import Cpu
from server.bindings.gpu import Gpu
from server.bindings.self_test import SelfTest
from server.config.schema import HearthConfig, ModelConfig
from server.config.server_section import ServerSettings
from server.encoders.kernel_choice import KernelFinding
from server.models.weights import WeightsStatus, WeightsStore
from server.workers.tuning import Tuning

_GIB = 1 << 30
_MIN_FREE_DISK_BYTES = _GIB


@dataclass(frozen=True)
class Finding:
    """One line of the report. `remedy` says what to do about it; it is empty when nothing is wrong."""

    name: str
    value: str
    remedy: str = ""

    @property
    def is_ok(self) -> bool:
        return not self.remedy


@dataclass(frozen=True)
class Machine:
    """What the report is about, besides the configuration.

    Attributes:
        tuning: What was measured about running a chat model whose weights are there, if anything.
        kernel: The same about an embedding or rerank model.
        test: Decodes with a model, or with a tiny one for None, in a child process; see `run_self_test`.
        is_hearth: Whether a Hearth answers at this address (`host:port`).
    """

    build: BuildInfo
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    tuning: Callable[[ModelConfig], Tuning | None]
    kernel: Callable[[ModelConfig], KernelFinding | None]
    test: Callable[[Path | None], SelfTest]
    is_hearth: Callable[[str], bool]


def diagnose(config: HearthConfig, store: WeightsStore, machine: Machine) -> Iterator[Finding]:
    """Yield findings as they are made; model files are read in full, so this takes a second per gigabyte or two."""
    yield Finding("hearth", server.__version__)
    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    yield from _check_build(machine)
    yield _check_cpu(machine)
    yield _check_gpus(machine)
    checked = [(model, store.check(model, deep=True)) for model in config.models]
    yield _check_self_test(machine, checked)
    yield from (_check_weights(model, status) for model, status in checked if model.source)
    if config.server.tune:
        yield from (_tell_runtime(model, machine) for model, _ in _chat_ggufs(checked))
        yield from (
            _tell_kernel(model, machine)
            for model, status in checked
            if model.backend == "sentence_transformers" and model.kernel == "auto" and status.state == "ready"
        )
    yield _check_memory(checked)
    yield from _check_disk({config.server.weights_dir, config.server.data_dir})
    yield check_port(config.server, machine.is_hearth)


def _check_build(machine: Machine) -> Iterator[Finding]:
    build = machine.build
    try:
        installed = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("llama-cpp-python", "not installed", "run: make setup")
        return
    if not build.llama_cpp_version:
        yield Finding("llama-cpp-python", f"{installed}, not built by Hearth's set-up")
        return
    is_ours = installed == build.llama_cpp_version
    yield Finding(
        "llama-cpp-python",
        f"{installed}, built {build.built_at}"
        if is_ours
        else f"{installed}, but set-up built {build.llama_cpp_version}",
        "" if is_ours else "run: make setup",
    )
    without_amx = machine.cpu.has_amx and any("-mno-amx" in argument for argument in build.cmake_args)
    yield Finding(
        "compiler",
        f"{build.compiler_version} ({build.compiler})" + (", AMX left out: it miscompiles that" if without_amx else ""),
        "for up to 5 times the speed install gcc >= 13 or clang >= 17, then run: make setup" if without_amx else "",
    )
    yield Finding("build flags", " ".join(build.cmake_args))


def _check_cpu(machine: Machine) -> Finding:
    cpu, build = machine.cpu, machine.build
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count()
    value = (
        f"{cpu.model}, {cores} cores, {psutil.cpu_count()} threads; {', '.join(cpu.notable_features) or 'no features'}"
    )
    missing = [name for name in build.cpu_features if name not in cpu.features]
    if missing:
        return Finding("cpu", f"{value}; llama.cpp was built for one with {', '.join(missing)}", "run: make setup")
    return Finding("cpu", value)


def _check_gpus(machine: Machine) -> Finding:
    if not machine.gpus:
        lost = machine.build.cuda
        return Finding(
            "gpu", "none", "llama.cpp was built for one; check the driver with nvidia-smi -L" if lost else ""
        )
    value = "; ".join(
        f"{gpu.name}, {_gib(gpu.free_bytes)} of {_gib(gpu.total_bytes)} free, driver {gpu.driver}"
        for gpu in machine.gpus
    )
    if not machine.build.cuda:
        remedy = "install the CUDA toolkit (nvcc), then run: make setup"
        return Finding("gpu", f"{value}; llama.cpp was built without CUDA and does not use it", remedy)
    if others := _built_for_others(machine):
        return Finding("gpu", f"{value}; llama.cpp was built for architecture {others}", "run: make setup")
    return Finding("gpu", value)


def _built_for_others(machine: Machine) -> str:
    """The architectures that llama.cpp was built for, where that of a GPU is not among them; else empty."""
    option = "-DCMAKE_CUDA_ARCHITECTURES="
    built = next((each.removeprefix(option) for each in machine.build.cmake_args if each.startswith(option)), "native")
    there = {gpu.compute_capability.replace(".", "") for gpu in machine.gpus}
    return "" if built == "native" or there <= set(built.split(";")) else built


def _check_self_test(machine: Machine, checked: Iterable[tuple[ModelConfig, WeightsStatus]]) -> Finding:
    """Decode with the first chat model that is there; with random weights if there is none."""
    ggufs = [(model.id, status.path) for model, status in _chat_ggufs(checked)]
    model_id, path = ggufs[0] if ggufs else ("random weights", None)
    test = machine.test(path)
    if not test.is_ok:
        return Finding("self-test", f"{test.outcome} with {model_id}: {test.detail}", "run: make setup")
    if not machine.build.use_extra_bufts:
        value = f"ok with {model_id}, but only without AMX and repacked weights, which is slower"
        return Finding("self-test", value, "install gcc >= 13 or clang >= 17, then run: make setup")
    enabled = ", ".join(re.findall(r"(\w+) = 1", test.detail))
    return Finding("self-test", f"ok with {model_id}; llama.cpp uses {enabled or 'no special instructions'}")


def _chat_ggufs(
    checked: Iterable[tuple[ModelConfig, WeightsStatus]],
) -> Iterator[tuple[ModelConfig, WeightsStatus]]:
    for model, status in checked:
        if model.kind == "chat" and model.backend == "llama_cpp" and status.state == "ready":
            yield model, status


def _tell_runtime(model: ModelConfig, machine: Machine) -> Finding:
    name, tuning = f"runtime {model.id}", machine.tuning(model)
    if tuning is None:
        return Finding(name, f"not measured; the first load does it, or: hearth tune {model.id}")
    settings = ", ".join(f"{key} {value}" for key, value in tuning.best.describe().items())
    return Finding(name, f"{settings} (measured {tuning.measured_at})")


def _tell_kernel(model: ModelConfig, machine: Machine) -> Finding:
    name, found = f"kernel {model.id}", machine.kernel(model)
    if found is None:
        return Finding(name, f"not measured; the first load does it, or: hearth tune {model.id}")
    return Finding(name, f"{found.best}: {'; '.join(found.describe().values())} (measured {found.measured_at})")


def _check_weights(model: ModelConfig, status: WeightsStatus) -> Finding:
    name = f"model {model.id}"
    if status.state != "ready":
        is_local = (model.source or "").startswith("file:")
        remedy = "put the file there, or correct `source`" if is_local else f"run: hearth pull {model.id}"
        return Finding(name, f"{status.path} is {status.state}: {status.reason}", remedy)
    assert status.sha256 is not None, "a deep check has read the files"
    verdict = "as models.yaml asks" if model.sha256 else "models.yaml has none to compare with"
    return Finding(name, f"{status.path}, {_mib(status.size_bytes)}, sha256 {status.sha256[:12]}… ({verdict})")


def _check_memory(checked: Iterable[tuple[ModelConfig, WeightsStatus]]) -> Finding:
    memory = psutil.virtual_memory()
    needed = sum(status.size_bytes for model, status in checked if not model.lazy)
    value = f"{_gib(memory.available)} of {_gib(memory.total)} available; weights take {_gib(needed)}"
    is_short = needed > memory.available
    return Finding(
        "memory", value, "end other programs, or set `lazy: true` for models that may wait" if is_short else ""
    )


def _check_disk(folders: set[Path]) -> Iterator[Finding]:
    for folder in sorted(folders):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        remedy = "free some space, or move the folder" if free < _MIN_FREE_DISK_BYTES else ""
        yield Finding(f"disk for {folder.name}", f"{_gib(free)} free at {folder}", remedy)


def check_port(settings: ServerSettings, is_hearth: Callable[[str], bool]) -> Finding:
    """Say whether a server could listen where the configuration asks for it; our own listening there is fine."""
    name, is_ipv6 = "port", ":" in settings.host
    if settings.port == 0:
        return Finding(name, "a free one is taken at start")
    address = f"[{settings.host}]:{settings.port}" if is_ipv6 else f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as exc:
            if is_hearth(address):
                return Finding(name, f"{address}, hearth is serving there")
            remedy = "set another with --port or server.port, or end the program that listens there"
            return Finding(name, f"{address} cannot be used: {exc.strerror}", remedy)
    return Finding(name, f"{address} is free")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
