"""What kind of file it is: told by its content, and by its name where content cannot tell."""

from __future__ import annotations

import mmap
import re
from pathlib import PurePosixPath
from typing import Literal

from server.rag.loaders.archive import office_type
from server.rag.loaders.source_file import SourceFile
from server.rag.parsing import ParseFailed

FileType = Literal["pdf", "docx", "xlsx", "pptx", "html", "markdown", "csv", "json", "email", "code", "text"]

SUPPORTED = "pdf, docx, xlsx, pptx, html, md, txt, csv, json, jsonl, eml and source code"

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_FOREIGN = (
    (b"{\\rtf", "an RTF document; save it as docx"),
    (b"%!PS", "PostScript; convert it to pdf"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x1f\x8b", "a gzip archive; upload what is in it"),
    (b"BZh", "a bzip2 archive; upload what is in it"),
    (b"\xfd7zXZ\0", "an xz archive; upload what is in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; upload what is in it"),
    (b"Rar!\x1a\x07", "a RAR archive; upload what is in it"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a program"),
)

# Comments and declarations may come before the root. The group is atomic: of many comments each is tried once.
_HTML = re.compile(
    r"(?>(?:\s+|<!--.*?-->|<\?xml[^>]*>)*)<(?:!doctype\s+html|html|head|body)\b", re.DOTALL | re.IGNORECASE
)
_MAIL_HEADER = re.compile(r"([!-9;-~]+):(?:[ \t]|$)")
_MAIL_ONLY = {"message-id", "received", "return-path", "delivered-to", "mime-version"}

_BY_EXTENSION: dict[str, FileType] = {
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), "markdown"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".geojson"), "json"),
    **dict.fromkeys((".eml",), "email"),
    **dict.fromkeys(
        (
            *(".asm", ".awk", ".bash", ".bat", ".c", ".cc", ".cfg", ".clj", ".cmake", ".conf", ".cpp", ".cs", ".css"),
            *(".cxx", ".d", ".dart", ".diff", ".el", ".erl", ".ex", ".exs", ".f90", ".fish", ".fs", ".go", ".gradle"),
            *(".graphql", ".h", ".hcl", ".hh", ".hpp", ".hs", ".ini", ".java", ".jl", ".js", ".jsx", ".kt", ".kts"),
            *(".less", ".lisp", ".lua", ".m", ".mjs", ".ml", ".mm", ".nix", ".pas", ".patch", ".php", ".pl", ".pm"),
            *(".properties", ".proto", ".ps1", ".py", ".pyi", ".r", ".rb", ".rs", ".scala", ".scss", ".sh", ".sql"),
            *(".svelte", ".swift", ".tf", ".toml", ".ts", ".tsx", ".v", ".vb", ".vhd", ".vim", ".vue", ".xml", ".xsd"),
            *(".xsl", ".yaml", ".yml", ".zig", ".zsh"),
        ),
        "code",
    ),
}
_CODE_NAMES = {"makefile", "dockerfile", "cmakelists.txt", "jenkinsfile", "rakefile", "gemfile", "justfile"}
_PROMISES = {".pdf", ".docx", ".xlsx", ".pptx", ".txt", *_BY_EXTENSION}


def tell_type(source: SourceFile) -> FileType:
    """Tell the type.

    Raises:
        ParseFailed: It is none that is read, or empty, or encrypted, or an archive that had better not be opened.
    """
    head = source.head
    if not head:
        raise ParseFailed("invalid_file", "the file is empty")
    if head.lstrip().startswith(b"%PDF-") or (source.extension == ".pdf" and b"%PDF-" in head):
        return "pdf"  # some programs put a line of their own before it
    if head.startswith(_ZIP):
        found = office_type(source)
        if found is None:
            raise _unsupported(source, "a zip archive; upload what is in it")
        return found
    if head.startswith(_OLE):
        raise _old_office(source)
    foreign = next((what for magic, what in _FOREIGN if head.startswith(magic)), None)
    if foreign:
        raise _unsupported(source, foreign)
    return _text_type(source)


def _text_type(source: SourceFile) -> FileType:
    start = source.text[:4096]
    if _HTML.match(start):
        return "html"
    if _is_mail(start):
        return "email"
    if PurePosixPath(source.filename.lower()).name in _CODE_NAMES or start.startswith("#!"):
        return "code"
    return _BY_EXTENSION.get(source.extension, "text")


def _is_mail(start: str) -> bool:
    """Whether it begins with the headers of a message that was sent."""
    headers = start.lstrip("\n").partition("\n\n")[0].splitlines()
    names = {found[1].lower() for line in headers if (found := _MAIL_HEADER.match(line))}
    return "from" in names and not _MAIL_ONLY.isdisjoint(names) and _MAIL_HEADER.match(headers[0]) is not None


def _old_office(source: SourceFile) -> ParseFailed:
    """Containers of the nineties hold the old formats, messages of Outlook, and whatever new ones were encrypted."""
    with source.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_ENCRYPTED_PACKAGE) >= 0:
            return ParseFailed("invalid_file", "the file is encrypted; upload a copy without a password")
    return _unsupported(source, "an old Office or Outlook file; save it as docx, xlsx, pptx or eml")


def _unsupported(source: SourceFile, what: str) -> ParseFailed:
    kind, _, remedy = what.partition("; ")
    name = f", though its name ends in {source.extension[:10]}" if source.extension in _PROMISES else ""
    remedy = f"{remedy}; " if remedy else ""
    return ParseFailed("unsupported_file", f"the file is {kind}{name}; {remedy}supported are {SUPPORTED}")
