"""Where Hearth keeps what several checkouts share. Standard library only: set-up runs before anything is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the user's folder for downloads, built wheels and their logs, and what was measured."""
    base = environ.get("XDG_CACHE_HOME")
    return Path(base) / "hearth" if base else Path.home() / ".cache" / "hearth"


def tuning_folder() -> Path:
    """Return the folder of what was measured on this machine."""
    return cache_folder() / "tuning"


def footprint_folder() -> Path:
    """Return the folder of what loaded models took of memory and time."""
    return cache_folder() / "footprints"
