"""Reads a file of any supported type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from server.rag.documents import ParsedDocument
from server.rag.loaders.file_type import FileType, tell_type
from server.rag.loaders.source_file import SourceFile
from server.rag.parsing import ParserLimits


def load(path: Path, filename: str, limits: ParserLimits) -> ParsedDocument:
    """Read a file.

    Args:
        path: Where it is.
        filename: What its owner called it; only its extension counts, and only where the content does not tell.

    Raises:
        ParseFailed: It cannot be read, or must not be.
        Exception: Whatever libraries make of a damaged file.
    """
    source = SourceFile(path, filename, limits)
    return _loader_of(tell_type(source))(source)


def _loader_of(file_type: FileType) -> Callable[[SourceFile], ParsedDocument]:  # noqa: PLR0911  # a table, import by import
    """Import one loader and the libraries behind it: those of all together take a second, and 100 MB."""
    match file_type:
        case "pdf":
            from server.rag.loaders.pdf import load_pdf

            return load_pdf
        case "docx":
            from server.rag.loaders.word import load_docx

            return load_docx
        case "xlsx":
            from server.rag.loaders.spreadsheet import load_xlsx

            return load_xlsx
        case "pptx":
            from server.rag.loaders.slides import load_pptx

            return load_pptx
        case "html":
            from server.rag.loaders.html_page import load_html

            return load_html
        case "markdown":
            from server.rag.loaders.markdown_text import load_markdown

            return load_markdown
        case "email":
            from server.rag.loaders.mail import load_email

            return load_email
        case "csv":
            from server.rag.loaders.delimited import load_csv

            return load_csv
        case "json":
            from server.rag.loaders.json_data import load_json

            return load_json
        case "code":
            from server.rag.loaders.plain_text import load_code

            return load_code
        case "text":
            from server.rag.loaders.plain_text import load_text

            return load_text
