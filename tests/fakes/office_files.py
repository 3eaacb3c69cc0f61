"""Office documents as bytes, made by the libraries that read them, and changed where those would refuse."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import docx
import openpyxl
import pptx

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx_file(fill: Callable[[Any], object]) -> bytes:
    document = docx.Document()
    fill(document)
    return _saved(document)


def docx_of_body(xml: str, *, before: str = "") -> bytes:
    """A document whose body is this XML, where `w:` is the usual prefix; `before` comes before the root."""
    body = f'{before}<w:document xmlns:w="{WORD}"><w:body>{xml}</w:body></w:document>'
    return with_members(docx_file(lambda _document: None), {"word/document.xml": body.encode()})


def xlsx_file(sheets: Mapping[str, Sequence[Sequence[object]]]) -> bytes:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.worksheets[0])
    for title, rows in sheets.items():
        sheet = workbook.create_sheet(title)
        for row in rows:
            sheet.append(row)
    return _saved(workbook)


def pptx_file(fill: Callable[[Any], object]) -> bytes:
    presentation = pptx.Presentation()
    fill(presentation)
    return _saved(presentation)


def with_members(archive: bytes, members: Mapping[str, bytes]) -> bytes:
    """The archive with some members replaced, or added."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    return zip_file({**kept, **members})


def zip_file(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def _saved(document: Any) -> bytes:
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()
