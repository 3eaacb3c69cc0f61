"""Which NVIDIA GPUs the driver sees. Standard library only: set-up asks before any package is installed."""

from __future__ import annotations

import re
import subprocess


def find_gpus() -> tuple[str, ...]:
    """Return their names, e.g. `NVIDIA H100 80GB HBM3`; none without a working driver."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_gpu_list(done.stdout) if done.returncode == 0 else ()


def parse_gpu_list(text: str) -> tuple[str, ...]:
    """Take the names out of what `nvidia-smi -L` prints."""
    return tuple(re.findall(r"^GPU \d+: (.+?) \(UUID", text, re.MULTILINE))
