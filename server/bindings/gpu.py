"""Which NVIDIA GPUs the driver sees, and what is used of them now.

Set-up asks before any package is installed, so everything works with nvidia-smi alone; with the package nvidia-ml-py
(the extra `gpu`) the driver is asked directly, in a millisecond instead of some hundred.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_QUERY = "index,uuid,name,memory.total,memory.used,compute_cap,driver_version"


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver tells of it now.

    Attributes:
        index: As nvidia-smi counts, by the place on the bus.
        compute_capability: E.g. `9.0`, which names the architecture that kernels are compiled for.
        used_bytes: By all processes, this server's or not.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    used_bytes: int
    compute_capability: str
    driver: str

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes


def find_gpus() -> tuple[str, ...]:
    """Return their names, e.g. `NVIDIA H100 80GB HBM3`; none without a working driver."""
    return parse_gpu_list(_ask_nvidia_smi("-L"))


def parse_gpu_list(text: str) -> tuple[str, ...]:
    """Take the names out of what `nvidia-smi -L` prints."""
    return tuple(re.findall(r"^GPU \d+: (.+?) \(UUID", text, re.MULTILINE))


def read_gpus() -> tuple[Gpu, ...]:
    """Describe all GPUs as they are now; none without a working driver."""
    try:
        return _read_nvml()
    except ImportError:
        return parse_gpu_query(_ask_nvidia_smi(f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"))


def parse_gpu_query(text: str) -> tuple[Gpu, ...]:
    """Read what nvidia-smi prints for `_QUERY`; lines that are not understood are left out."""
    return tuple(gpu for line in text.splitlines() if (gpu := _gpu_of([part.strip() for part in line.split(",")])))


def _gpu_of(fields: list[str]) -> Gpu | None:
    try:
        index, uuid, name, total_mib, used_mib, capability, driver = fields
        return Gpu(int(index), uuid, name, int(total_mib) << 20, int(used_mib) << 20, capability, driver)
    except ValueError:  # another number of fields, or [N/A]
        return None


def _ask_nvidia_smi(*arguments: str) -> str:
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _read_nvml() -> tuple[Gpu, ...]:
    """Ask the driver's own library.

    Raises:
        ImportError: nvidia-ml-py is not installed.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_nvml_gpu(pynvml, index, handle, driver) for index, handle in enumerate(handles))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _nvml_gpu(nvml: Any, index: int, handle: object, driver: str) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        total_bytes=memory.total,
        used_bytes=memory.used,
        compute_capability=f"{major}.{minor}",
        driver=driver,
    )


def visible_gpus(gpus: tuple[Gpu, ...], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Those that CUDA shows to a process with this environment, in its order."""
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return gpus
    found = []
    for name in filter(None, map(str.strip, wanted.split(","))):
        gpu = next((each for each in gpus if name == str(each.index) or each.uuid.startswith(name)), None)
        if gpu is None:
            break  # as CUDA does: what comes behind an unknown one is not seen either
        found.append(gpu)
    return tuple(found)


def gpu_environment(device: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that show a process only what `device` of models.yaml names: all GPUs, one of them, or none.

    A process that sees no GPU takes no memory of any. `cuda:1` is the second of those that the server itself sees.
    """
    order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi counts; CUDA's own order puts the fastest first
    if device == "cpu":
        return order | {"CUDA_VISIBLE_DEVICES": ""}
    if not device.startswith("cuda:"):
        return order
    number = int(device.removeprefix("cuda:"))
    seen = environ.get("CUDA_VISIBLE_DEVICES")
    if seen is None:
        return order | {"CUDA_VISIBLE_DEVICES": str(number)}
    names = [name.strip() for name in seen.split(",")]
    return order | {"CUDA_VISIBLE_DEVICES": names[number] if number < len(names) else ""}
