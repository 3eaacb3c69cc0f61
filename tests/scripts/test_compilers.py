from __future__ import annotations

from pathlib import Path

import pytest

from scripts.compilers import Compiler, choose_compiler, find_compilers
from scripts.steps import SetupError
from server.bindings.cpu import Cpu

PLAIN = Cpu("plain", frozenset({"avx2"}))
AMX = Cpu("amx", frozenset({"avx2", "amx_tile", "amx_int8", "amx_bf16"}))

GCC = "g++ (Debian {0}-14+deb12u1) {0}\nCopyright (C) Free Software Foundation, Inc."
CLANG = "Debian clang version {0} (3~deb12u1)\nTarget: x86_64-pc-linux-gnu"


def put_compiler(folder: Path, name: str, version: str, *, works: bool = True) -> None:
    """Lay two programs that print a real compiler's banner and accept, or refuse, to compile."""
    banner = (CLANG if name.startswith("clang") else GCC).format(version)
    twin = name.replace("clang", "clang++") if name.startswith("clang") else name.replace("gcc", "g++")
    for program in (name, twin):
        path = folder / program
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{banner}" && exit 0\nexit {0 if works else 1}\n')
        path.chmod(0o755)


def choose(path: Path, *, cpu: Cpu = PLAIN, notes: list[str] | None = None) -> Compiler:
    return choose_compiler(str(path), cpu=cpu, note=(notes if notes is not None else []).append, install=lambda: False)


def test_versions_and_twins_are_read(tmp_path: Path) -> None:
    put_compiler(tmp_path, "gcc", "12.2.0")
    put_compiler(tmp_path, "clang-19", "19.1.7")

    found = list(find_compilers(str(tmp_path)))

    assert [str(compiler) for compiler in found] == ["clang 19.1.7", "gcc 12.2.0"]
    assert found[0].cxx == str(tmp_path / "clang++-19")


def test_a_compiler_without_its_cxx_twin_is_not_found(tmp_path: Path) -> None:
    put_compiler(tmp_path, "gcc", "13.2.0")
    (tmp_path / "g++").unlink()

    assert list(find_compilers(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("name", "version", "is_right"),
    [
        ("gcc", "12.2.0", False),
        ("gcc-13", "13.1.0", True),
        ("clang-16", "16.0.6", False),
        ("clang-17", "17.0.1", True),
    ],
)
def test_right_compilers_start_at_gcc_13_and_clang_17(tmp_path: Path, name: str, version: str, is_right: bool) -> None:
    put_compiler(tmp_path, name, version)

    assert choose(tmp_path).is_right is is_right


def test_the_newest_right_compiler_is_taken(tmp_path: Path) -> None:
    for name, version in (("gcc", "12.2.0"), ("gcc-13", "13.1.0"), ("gcc-14", "14.2.0")):
        put_compiler(tmp_path, name, version)

    assert str(choose(tmp_path)) == "gcc 14.2.0"


def test_nothing_is_installed_when_a_right_compiler_is_there(tmp_path: Path) -> None:
    put_compiler(tmp_path, "gcc", "13.1.0")

    found = choose_compiler(str(tmp_path), cpu=AMX, note=pytest.fail, install=lambda: pytest.fail("installed"))

    assert str(found) == "gcc 13.1.0"


def test_an_installed_compiler_is_taken(tmp_path: Path) -> None:
    put_compiler(tmp_path, "gcc", "12.2.0")

    def install() -> bool:
        put_compiler(tmp_path, "clang-19", "19.1.7")
        return True

    assert str(choose_compiler(str(tmp_path), cpu=AMX, note=pytest.fail, install=install)) == "clang 19.1.7"


def test_a_right_compiler_that_cannot_build_is_passed_over_with_a_note(tmp_path: Path) -> None:
    put_compiler(tmp_path, "clang-19", "19.1.7", works=False)
    put_compiler(tmp_path, "gcc", "12.2.0")
    notes: list[str] = []

    assert str(choose(tmp_path, notes=notes)) == "gcc 12.2.0"
    assert notes == [
        "clang 19.1.7 is passed over: it cannot build a C++ program with OpenMP; is libomp-19-dev installed?"
    ]


def test_no_compiler_at_all_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"apt-get install clang-19 libomp-19-dev"):
        choose(tmp_path)


def test_leaving_amx_out_says_what_it_costs(tmp_path: Path) -> None:
    put_compiler(tmp_path, "gcc", "12.2.0")
    notes: list[str] = []

    compiler = choose(tmp_path, cpu=AMX, notes=notes)

    assert compiler.flags_for(AMX) == ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16")
    assert "prompts take up to 5 times as long" in notes[0]


def test_without_amx_the_fallback_costs_nothing_and_says_nothing(tmp_path: Path) -> None:
    put_compiler(tmp_path, "gcc", "12.2.0")
    notes: list[str] = []

    compiler = choose(tmp_path, cpu=PLAIN, notes=notes)

    assert (compiler.flags_for(PLAIN), notes) == ((), [])


@pytest.mark.parametrize(("name", "version"), [("gcc", "10.2.1"), ("gcc", "13.1.0"), ("clang", "11.0.1")])
def test_amx_flags_go_only_to_compilers_that_miscompile_it(tmp_path: Path, name: str, version: str) -> None:
    """Older compilers do not know the flags and would refuse them."""
    put_compiler(tmp_path, name, version)

    assert choose(tmp_path, cpu=AMX).flags_for(AMX) == ()
