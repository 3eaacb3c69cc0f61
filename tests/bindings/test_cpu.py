from __future__ import annotations

from pathlib import Path

from server.bindings.cpu import read_cpu

SAPPHIRE_RAPIDS = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu avx2 avx512f amx_bf16 avx512_vnni amx_tile amx_int8

processor\t: 1
model name\t: another
"""

GRAVITON = """\
processor\t: 0
Features\t: fp asimd asimddp sve i8mm
CPU part\t: 0xd40
"""


def test_an_x86_cpu_is_known_by_model_and_flags(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(SAPPHIRE_RAPIDS)

    cpu = read_cpu(tmp_path / "cpuinfo")

    assert cpu.model == "Intel(R) Xeon(R) Platinum 8481C"
    assert cpu.has_amx
    assert cpu.notable_features == ("avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_int8", "amx_bf16")


def test_an_arm_cpu_is_known_by_part_and_features(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(GRAVITON)

    cpu = read_cpu(tmp_path / "cpuinfo")

    assert (cpu.model, cpu.has_amx, cpu.notable_features) == ("0xd40", False, ("asimddp", "i8mm", "sve"))


def test_a_system_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    assert read_cpu(tmp_path / "absent").model
