"""What the CPU can do, as far as llama.cpp cares. Reads /proc/cpuinfo; knows no compiler and no model.

Standard library only: set-up reads this before any package is installed.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

AMX_FEATURES = frozenset({"amx_tile", "amx_int8", "amx_bf16"})

NOTABLE_FEATURES = (
    # x86, as the kernel names them
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    # Arm
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)
"""The features that llama.cpp has kernels for, slowest generation first."""


@dataclass(frozen=True)
class Cpu:
    """One machine's processor. `features` are all flags that the kernel reports."""

    model: str
    features: frozenset[str]

    @property
    def has_amx(self) -> bool:
        return bool(self.features & AMX_FEATURES)

    @property
    def notable_features(self) -> tuple[str, ...]:
        return tuple(name for name in NOTABLE_FEATURES if name in self.features)


def read_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    """Describe this machine's CPU; without /proc/cpuinfo only its architecture is known."""
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    model = fields.get("model name") or fields.get("cpu part") or platform.machine()
    return Cpu(model=model, features=frozenset((fields.get("flags") or fields.get("features") or "").split()))
