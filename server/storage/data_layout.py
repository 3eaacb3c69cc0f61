"""What lies where in the data directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataLayout:
    """Paths below the data directory; none needs to exist.

    data/
      lock            held by the server that uses the directory
      hearth.sqlite   all that is known; copies from before an upgrade lie beside it
      accounts.sqlite keys, and what they used
      usage/          what was used lately, on its way into accounts.sqlite
      files/          the bytes of uploads, by id
      imports/        exported vector stores on their way in; empty before each start
      indexes/        vectors ready to be searched; made again from the database when lost
    """

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "hearth.sqlite"

    @property
    def accounts(self) -> Path:
        return self.folder / "accounts.sqlite"

    @property
    def usage(self) -> Path:
        return self.folder / "usage"

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def imports(self) -> Path:
        return self.folder / "imports"

    @property
    def indexes(self) -> Path:
        return self.folder / "indexes"
