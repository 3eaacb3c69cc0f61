"""What every result states besides its figures: the machine and the versions that were measured."""

from __future__ import annotations

import datetime
import platform
import sqlite3
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from server.bindings.build_info import load_build_info
from server.bindings.cpu import read_cpu
from server.bindings.gpu import find_gpus

_PACKAGES = (
    *("hearth", "llama-cpp-python", "torch", "sentence-transformers", "onnxruntime", "starlette", "uvicorn"),
    "faiss-cpu",
)


def describe_machine() -> dict[str, object]:
    return {
        "cpu": read_cpu().model,
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": list(find_gpus()),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_at_start": round(psutil.getloadavg()[0], 2),
    }


def describe_versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "sqlite": sqlite3.sqlite_version,
        "hearth commit": _commit(),
        "llama.cpp compiler": load_build_info().compiler_version,
    }


def _commit() -> str:
    """Of this checkout, with `-dirty` where files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git
        return ""
    return done.stdout.strip()


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, object]:
    """Median, extremes and the values themselves."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "values": [round(value, digits) for value in values],
    }
