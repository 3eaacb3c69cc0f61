"""The file that is being read, and what is wanted of it more than once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from server.rag.loaders.decoding import decode
from server.rag.parsing import ParseFailed, ParserLimits

_HEAD_BYTES = 4096
_MAX_EXPANSION = 4
"""Bytes of a file for one of its text, at most: UTF-32, or markup around it."""


@dataclass(frozen=True)
class SourceFile:
    """A file under the name that its owner gave it. What has been read of it is kept."""

    path: Path
    filename: str
    limits: ParserLimits

    @property
    def extension(self) -> str:
        """In lower case, with its dot; empty if there is none."""
        return PurePosixPath(self.filename.lower()).suffix

    @cached_property
    def head(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(_HEAD_BYTES)

    @cached_property
    def content(self) -> bytes:
        """All of it, for formats that are text.

        Raises:
            ParseFailed: It is larger than any text that would be accepted.
        """
        if self.path.stat().st_size > _MAX_EXPANSION * self.limits.max_text_bytes:
            raise ParseFailed(
                "invalid_file",
                f"the file is larger than {_MAX_EXPANSION * self.limits.max_text_bytes >> 20} MB, too much for text; "
                "split it",
            )
        return self.path.read_bytes()

    @cached_property
    def text(self) -> str:
        """The content, decoded and clean.

        Raises:
            ParseFailed: It is not text.
        """
        text = decode(self.content)
        if text is None:
            raise ParseFailed("unsupported_file", "the file holds binary data of an unknown kind")
        return text
