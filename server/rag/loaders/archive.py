"""Zip archives, in which Office documents are kept: looked through before anything in them is unpacked."""

from __future__ import annotations

import re
import struct
import zipfile
from typing import Literal

from server.rag.loaders.source_file import SourceFile
from server.rag.parsing import ParseFailed

OfficeType = Literal["docx", "xlsx", "pptx"]

_END = struct.Struct("<4x4H2L2x")  # the record at the end of an archive: disks, numbers of members, size of directory
_END_MAGIC = b"PK\x05\x06"
_MAX_COMMENT_BYTES = 0xFFFF
_ZIP64_COUNT = 0xFFFF
_MAX_ENTRY_BYTES = 400
"""Of the directory, for each member: a name, and little else."""

_MAX_RATIO = 250
_MIN_BOMB_BYTES = 32 << 20
"""Sheets of equal cells are packed as tightly as bombs are, but small."""

_CONTENT_TYPES = "[Content_Types].xml"
_MAX_CONTENT_TYPES_BYTES = 4 << 20
_MAIN_PART = re.compile(
    rb"\.(wordprocessingml|spreadsheetml|presentationml)\.[a-z]+\.main\+xml|\.ms-(word|excel|powerpoint)\.[a-z]+\."
    rb"macroEnabled\.main\+xml",
    re.IGNORECASE,
)
_TYPE_OF: dict[bytes, OfficeType] = {
    b"wordprocessingml": "docx",
    b"word": "docx",
    b"spreadsheetml": "xlsx",
    b"excel": "xlsx",
    b"presentationml": "pptx",
    b"powerpoint": "pptx",
}


def office_type(source: SourceFile) -> OfficeType | None:
    """Tell which Office document an archive is; None if it is something else.

    Raises:
        ParseFailed: It is damaged, encrypted, a bomb, or several documents in one.
    """
    _check_directory(source)
    try:
        with zipfile.ZipFile(source.path) as archive:
            _check_members(source, archive.infolist())
            if _CONTENT_TYPES not in archive.NameToInfo:
                return None
            with archive.open(_CONTENT_TYPES) as file:
                listing = file.read(_MAX_CONTENT_TYPES_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as exc:
        raise ParseFailed("invalid_file", "the file is a damaged zip archive; upload it again") from exc
    found = {_TYPE_OF[(match[1] or match[2]).lower()] for match in _MAIN_PART.finditer(listing)}
    if len(found) > 1:
        kinds = " and ".join(sorted(found))
        raise ParseFailed("invalid_file", f"the file is {kinds} in one; upload one document per file")
    return found.pop() if found else None


def _check_directory(source: SourceFile) -> None:
    """Bound the number of members before a list of them is made. Archives that need more than the classic format are
    none of ours."""
    with source.path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _MAX_COMMENT_BYTES - _END.size))
        tail = file.read()
    position = tail.rfind(_END_MAGIC)
    if position < 0 or len(tail) - position < _END.size:
        raise ParseFailed("invalid_file", "the file is a zip archive without its end; upload it again")
    _, _, _, num_members, directory_bytes, _ = _END.unpack_from(tail, position)
    most = source.limits.max_members
    if num_members == _ZIP64_COUNT or num_members > most or directory_bytes > most * _MAX_ENTRY_BYTES:
        raise _bomb(f"has more than {most} members")


def _check_members(source: SourceFile, members: list[zipfile.ZipInfo]) -> None:
    """What members say of their size binds: `zipfile` unpacks no more."""
    most = source.limits.max_unpacked_bytes
    if len(members) > source.limits.max_members:
        raise _bomb(f"has more than {source.limits.max_members} members")
    unpacked = sum(member.file_size for member in members)
    if unpacked > most:
        raise _bomb(f"unpacks to more than {most >> 20} MB")
    if unpacked > max(_MIN_BOMB_BYTES, _MAX_RATIO * source.path.stat().st_size):
        raise _bomb(f"unpacks to more than {_MAX_RATIO} times its size")
    if len({member.filename for member in members}) < len(members):
        raise _bomb("has members of the same name")
    if any(member.flag_bits & 1 for member in members):
        raise ParseFailed("invalid_file", "the file is an encrypted zip archive; upload a copy without a password")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ParseFailed("invalid_file", "the file is a zip archive with a compression that Office does not use")


def _bomb(what: str) -> ParseFailed:
    return ParseFailed("invalid_file", f"the file is a zip archive that {what}; it is not unpacked")
