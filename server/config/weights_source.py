"""The grammar of a `source`: where the weights of a model come from."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

SOURCE_FORMS = (
    "file:PATH",
    "hf:OWNER/REPO[@REVISION][#PATH]",
    "pypi:PACKAGE==VERSION#PATH/IN/WHEEL",
)
_PATH_PART = r"(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f]+"
_INNER_PATH = rf"{_PATH_PART}(?:/{_PATH_PART})*"
SOURCE_PATTERN = re.compile(
    r"file:(?P<file>[^\x00-\x1f]+)"
    r"|hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?"
    rf"(?:#(?P<repo_path>{_INNER_PATH}))?"
    rf"|pypi:(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+-]+)#(?P<wheel_path>{_INNER_PATH})",
    re.ASCII,
)
"""Grammar of a source, for `fullmatch`; `models/sources.py` names its parts. Paths after `#` stay below their root."""


def _check_source(source: str) -> str:
    if not SOURCE_PATTERN.fullmatch(source):
        raise ValueError(f"expected one of {', '.join(SOURCE_FORMS)}, where a path after # is relative and without ..")
    return source


Source = Annotated[str, AfterValidator(_check_source)]
