"""Where weights come from, as types: `file:`, `hf:` and `pypi:` sources. Fetches nothing.

The grammar itself is `config.schema.SOURCE_PATTERN`, so that a source in a loaded configuration always parses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from server.config.weights_source import SOURCE_FORMS, SOURCE_PATTERN
from server.errors import WeightsError


@dataclass(frozen=True)
class FileSource:
    """A file or folder that is used where it lies."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True)
class HfSource:
    """A repository on the Hugging Face Hub, or one file or folder of it.

    Attributes:
        repo: `owner/name`.
        revision: Branch, tag or commit; None is the main branch.
        path: File or folder inside the repository; None is all that a model needs of it.
    """

    repo: str
    revision: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}" + (f"#{self.path}" if self.path else "")

    @property
    def name(self) -> str:
        """What the file or folder is called once it lies in `weights/<model-id>/`."""
        return PurePosixPath(self.path or self.repo).name


@dataclass(frozen=True)
class PypiSource:
    """A file or folder inside a Python wheel: `path`, from the wheel's root."""

    package: str
    version: str
    path: str

    def __str__(self) -> str:
        return f"pypi:{self.package}=={self.version}#{self.path}"

    @property
    def name(self) -> str:
        """What the file or folder is called once it lies in `weights/<model-id>/`."""
        return PurePosixPath(self.path).name


Source = FileSource | HfSource | PypiSource


def parse_source(text: str) -> Source:
    """Parse a source as models.yaml has it; `str()` of the answer gives the text back.

    Raises:
        WeightsError: The text has none of the forms.
    """
    match = SOURCE_PATTERN.fullmatch(text)
    if match is None:
        raise WeightsError(f"{text!r} is not a source; expected one of {', '.join(SOURCE_FORMS)}")
    part = match.groupdict()
    if part["file"] is not None:
        return FileSource(Path(part["file"]))
    if part["repo"] is not None:
        return HfSource(part["repo"], part["revision"], part["repo_path"])
    return PypiSource(part["package"], part["version"], part["wheel_path"])
