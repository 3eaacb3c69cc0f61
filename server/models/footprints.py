"""What loaded models took, remembered between starts: memory and time, a small JSON file for each way to configure one.

Another version of Hearth begins anew: it may take less.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from pathlib import Path

import msgspec

import server
from server.config.schema import ModelConfig

logger = logging.getLogger(__name__)


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a model took.

    Attributes:
        model_id: For people who look into the file.
        memory_bytes: Most that its worker and its children held of the machine's memory.
        load_s: From when there was room for it until it was ready, the last time.
    """

    model_id: str
    memory_bytes: int
    load_s: float


class Footprints:
    """Findings by model, configuration and weights. Several processes may use one folder.

    A file that cannot be read counts as none, and one that cannot be written is lost: only estimates depend on them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, config: ModelConfig, weights: Path | None) -> Footprint | None:
        """What this model took the last time, configured as it is."""
        path = self._path(config, weights)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Footprint)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            logger.warning("footprint cannot be read", extra={"path": str(path), "reason": str(exc)})
            return None

    def remember(self, config: ModelConfig, weights: Path | None, found: Footprint) -> None:
        path = self._path(config, weights)
        part = self._folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as exc:
            logger.warning("footprint cannot be remembered", extra={"path": str(path), "reason": str(exc)})

    def _path(self, config: ModelConfig, weights: Path | None) -> Path:
        key = {**config.worker_part, "weights": config.sha256 or _stamp(weights), "hearth": server.__version__}
        digest = hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()
        return self._folder / f"{digest[:24]}.json"


def _stamp(weights: Path | None) -> str:
    """What changes with the files, without reading them."""
    if weights is None:
        return ""
    try:
        stats = [path.stat() for path in weights.rglob("*") if path.is_file()] or [weights.stat()]
    except OSError:
        return "unreadable"
    return f"{sum(stat.st_size for stat in stats)} bytes, changed {max(stat.st_mtime_ns for stat in stats)}"
