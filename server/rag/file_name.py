"""Names of uploaded files: they are shown and never used as a path, and are made harmless to show."""

from __future__ import annotations

import re
import unicodedata

from server.errors import InvalidRequest

MAX_CHARACTERS = 512

_NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, halves of pairs, separators of lines and paragraphs."""

_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Marks that turn the direction of text: with them `exe.txt` can be shown for `txt.exe`."""

_DRIVE = re.compile(r"[A-Za-z]:")


def clean_file_name(raw: bytes) -> str:
    """The name as it is kept: folders stay, separated by slashes; what leads out of them or cannot be seen goes.

    Raises:
        InvalidRequest: Nothing is left, or more than `MAX_CHARACTERS`.
    """
    text = raw.decode("utf-8", errors="replace").replace("\\", "/")
    visible = "".join(c for c in _DIRECTION.sub("", text) if unicodedata.category(c) not in _NOT_SHOWN)
    parts = [part.strip() for part in visible.split("/")]
    name = "/".join(part for part in parts if part not in ("", ".", "..") and not _DRIVE.fullmatch(part))
    if not name:
        raise InvalidRequest("the file has no name; send one as `filename` of its part", param="file")
    if len(name) > MAX_CHARACTERS:
        raise InvalidRequest(
            f"the file's name has {len(name)} characters but at most {MAX_CHARACTERS} are accepted", param="file"
        )
    return name
