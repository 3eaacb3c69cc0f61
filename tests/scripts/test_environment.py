from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.environment import (
    ROOT,
    Wanted,
    check_build,
    describe_pip,
    fingerprint,
    install_packages,
    pinned_version,
)
from scripts.steps import SetupError, Steps
from server.bindings.self_test import SelfTest

OK = SelfTest("ok", "CPU : AVX2 = 1")
SIGILL = SelfTest("sigill", "llama.cpp ran an instruction that this CPU does not accept")


def run_with(extra_bufts: SelfTest, *, plain: SelfTest) -> Callable[..., SelfTest]:
    def run(*, use_extra_bufts: bool = True, **_: object) -> SelfTest:
        return extra_bufts if use_extra_bufts else plain

    return run


def test_every_dependency_has_a_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]

    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)
        assert name
        assert pinned_version(re.sub(r"[_.]", "-", name[0].lower()))


def test_the_version_to_build_is_the_one_that_the_project_asks_for() -> None:
    assert f'"llama-cpp-python=={pinned_version("llama-cpp-python")}"' in (ROOT / "pyproject.toml").read_text()


def test_a_package_without_a_pin_is_refused() -> None:
    with pytest.raises(SetupError, match=r"constraints\.txt does not pin left-pad"):
        pinned_version("left-pad")


def test_the_fingerprint_stays_and_follows_cmake_args(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    assert fingerprint() == before

    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_BLAS=ON")

    assert fingerprint() != before


def test_an_environment_for_serving_is_another_one() -> None:
    """Where it was made last, tests need a set-up of their own, and the other way about."""
    assert (
        len({fingerprint(), fingerprint(Wanted(is_serving=True)), fingerprint(Wanted(cuda_architectures=("90",)))}) == 3
    )


@pytest.mark.parametrize(
    ("is_serving", "has_cuda", "project"),
    [
        (False, False, ["--editable", f"{ROOT}[dev]"]),
        (False, True, ["--editable", f"{ROOT}[dev,gpu]"]),
        (True, False, [str(ROOT)]),
        (True, True, [f"{ROOT}[gpu]"]),
    ],
)
def test_images_get_no_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_serving: bool, has_cuda: bool, project: list[str]
) -> None:
    installed: list[list[str]] = []
    monkeypatch.setattr("scripts.environment.VENV", tmp_path)
    monkeypatch.setattr("scripts.environment.pip", lambda arguments, *_: installed.append(arguments))
    wheel = tmp_path / "llama_cpp_python.whl"
    wheel.touch()

    install_packages(wheel, Steps(1, io.StringIO()), is_serving=is_serving, has_cuda=has_cuda)

    assert installed[0][-1] == str(wheel)
    assert installed[1] == ["--only-binary", "llama-cpp-python", *project]


def test_pip_lines_become_progress() -> None:
    assert describe_pip("  Downloading numpy-2.4.6-cp311.whl (16.0 MB)\n") == "downloading numpy-2.4.6-cp311.whl"
    assert describe_pip("Installing collected packages: a, b\n") == "unpacking"
    assert describe_pip("Requirement already satisfied: a\n") is None


def test_a_sound_build_passes() -> None:
    assert check_build(Steps(1, io.StringIO()), run_with(OK, plain=SIGILL)) == OK


def test_a_build_that_runs_only_without_amx_is_kept_and_explained() -> None:
    out = io.StringIO()

    test = check_build(Steps(1, out), run_with(SIGILL, plain=OK))

    assert test == SIGILL
    assert SIGILL.detail in out.getvalue()
    assert "with AMX and repacked weights switched off it runs" in out.getvalue()


def test_a_build_that_never_runs_is_refused() -> None:
    with pytest.raises(SetupError, match="does not run"):
        check_build(Steps(1, io.StringIO()), run_with(SIGILL, plain=SIGILL))
