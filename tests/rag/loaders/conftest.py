from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.rag.documents import ParsedDocument
from server.rag.loaders.load import load
from server.rag.parsing import ParserLimits
from tests.fakes.parsed_documents import Read, check_blocks


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads in this process. What holds for all documents is checked each time."""

    def read_content(filename: str, content: str | bytes, **limits: Any) -> ParsedDocument:
        path = tmp_path / "file-0123"  # as it is stored: without a name that would tell anything
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        document = load(path, filename, ParserLimits(**limits))
        check_blocks(document)
        return document

    return read_content
