"""How llama-cpp-python was built for this environment: the record that set-up leaves behind and workers obey.

Standard library only, and no llama_cpp: set-up, the API process and `hearth doctor` read it too.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FILE_NAME = "hearth-build.json"


@dataclass(frozen=True)
class BuildInfo:
    """One build and what its self-test found. The defaults describe an environment that set-up did not make.

    Attributes:
        compiler: Path of the C compiler; empty when unknown.
        cmake_args: What the build was configured with.
        cpu_model, cpu_features: The machine that it was compiled for (`-march=native`); only notable features.
        cuda: Built for NVIDIA GPUs.
        self_test: Outcome of decoding with extra buffers: `ok`, `sigill`, `crashed`, `failed`, `timeout` or `not run`.
        use_extra_bufts: What to put into `llama_model_params`: false when only AMX or repacked weights crash.
        wheel_sha256: Digest of the wheel that is installed.
        built_at: When set-up installed it, ISO 8601 in UTC.
    """

    llama_cpp_version: str = ""
    compiler: str = ""
    compiler_version: str = ""
    cmake_args: tuple[str, ...] = ()
    cpu_model: str = ""
    cpu_features: tuple[str, ...] = ()
    cuda: bool = False
    self_test: str = "not run"
    use_extra_bufts: bool = True
    wheel_sha256: str = ""
    built_at: str = ""


def load_build_info(prefix: Path | None = None) -> BuildInfo:
    """Read the record of an environment (default: the running one); defaults when there is none to read."""
    path = (prefix or Path(sys.prefix)) / FILE_NAME
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(BuildInfo)}
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        }
        return BuildInfo(**{key: value for key, value in values.items() if key in known})
    except FileNotFoundError:
        return BuildInfo()
    except (OSError, ValueError, AttributeError):
        logger.warning("build record is unreadable, defaults are used", extra={"path": str(path)})
        return BuildInfo()


def save_build_info(info: BuildInfo, prefix: Path) -> None:
    """Write the record whole or not at all."""
    path = prefix / FILE_NAME
    part = path.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(info), indent=2) + "\n", encoding="utf-8")
    part.replace(path)
