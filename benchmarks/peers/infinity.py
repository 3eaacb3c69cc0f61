"""Infinity (`infinity-emb`) in a virtual environment of its own: it wants older libraries than Hearth.

python -m benchmarks.peers.infinity           # install it and print where it is
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from server.models.cache_folder import cache_folder

REQUIREMENTS = Path(__file__).with_name("infinity_requirements.txt")
NEWEST_PYTHON = (3, 12)
"""numpy below 2, which Infinity asks for, has no build for later ones."""

ENVIRONMENT = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
"""For its process: it would report its use, and look for weights on the net that lie on the disk."""

_VERSIONS_OF = ("infinity_emb", "torch", "transformers", "sentence-transformers")


def install_infinity() -> Path:
    """Return the command, installing it first if needed (some minutes)."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "peers" / f"infinity-{digest}"
    command = folder / "bin" / "infinity_emb"
    is_complete = folder / "complete"
    if not is_complete.exists():
        if sys.version_info[:2] > NEWEST_PYTHON:
            raise SystemExit(f"infinity runs on python 3.9 to 3.12, not on {sys.version.split()[0]}; use one of these")
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", "--requirement", str(REQUIREMENTS)], check=True)
        is_complete.touch()
    return command


def versions_of(command: Path) -> dict[str, str]:
    """What it runs on, e.g. `{"infinity_emb": "0.0.78", ...}`."""
    pip = [str(command.with_name("python")), "-m", "pip", "list", "--format", "json"]
    done = subprocess.run(pip, capture_output=True, text=True, check=True)
    return {each["name"]: each["version"] for each in json.loads(done.stdout) if each["name"] in _VERSIONS_OF}


if __name__ == "__main__":
    print(install_infinity())
