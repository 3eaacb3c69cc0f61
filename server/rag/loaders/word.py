"""Word documents (docx). The XML is walked here: python-docx leaves out insertions, content controls and text boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.part import Part, XmlPart
from docx.oxml.parser import parse_xml
from docx.package import Package

from server.rag.documents import ParsedDocument
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.source_file import SourceFile

Element = Any
"""An lxml element; lxml has no types."""

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_PARAGRAPH, _TABLE, _ROW, _CELL, _RUN, _VALUE = (f"{_W}{name}" for name in ("p", "tbl", "tr", "tc", "r", "val"))
_TEXTS = frozenset((f"{_W}t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"))
_SIGNS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_TRANSPARENT = frozenset(f"{_W}{name}" for name in ("sdt", "sdtContent", "customXml", "ins", "moveTo", "smartTag"))
_SKIPPED = frozenset(
    (
        *(f"{_W}{name}" for name in ("del", "moveFrom", "pPr", "rPr")),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",  # the same once more
    )
)
_FALSE = ("0", "false", "off")
_MAX_LEVEL = 9


def load_docx(source: SourceFile) -> ParsedDocument:
    """The body, then footnotes and endnotes. Headers and footers, comments, hidden and deleted text are left out."""
    with source.path.open("rb") as file:
        main = Package.open(file).main_document_part
    styles = _Styles(main)
    builder = DocumentBuilder(source.limits)
    for part in (main, *_related(main, RELATIONSHIP_TYPE.FOOTNOTES), *_related(main, RELATIONSHIP_TYPE.ENDNOTES)):
        for container in _root(part).iterchildren(f"{_W}body", f"{_W}footnote", f"{_W}endnote"):
            _add_blocks(builder, container, styles)
    return builder.build("application/vnd.openxmlformats-officedocument.wordprocessingml.document")


class _Styles:
    """What styles mean: level of headings, and which are lists. Styles are based on each other."""

    def __init__(self, main: Part) -> None:
        parts = _related(main, RELATIONSHIP_TYPE.STYLES)
        found = _root(parts[0]).iter(f"{_W}style") if parts else ()
        self._styles: dict[str | None, Element] = {style.get(f"{_W}styleId"): style for style in found}

    def heading_level(self, style_id: str | None) -> int:
        """0 if it is no heading."""
        for style in self._line_of(style_id):
            name = (_value(style, "name") or "").lower()
            if name == "title":
                return 1
            if name.startswith("heading ") and name[8:].isdigit():
                return min(int(name[8:]), _MAX_LEVEL)
            if level := _outline_level(style):
                return level
        return 0

    def is_list(self, style_id: str | None) -> bool:
        return any((_value(style, "name") or "").lower().startswith("list ") for style in self._line_of(style_id))

    def _line_of(self, style_id: str | None) -> Iterator[Element]:
        seen = set()
        while style_id in self._styles and style_id not in seen:
            seen.add(style_id)
            yield self._styles[style_id]
            style_id = _value(self._styles[style_id], "basedOn")


def _add_blocks(builder: DocumentBuilder, container: Element, styles: _Styles) -> None:
    for element in _children(container, _PARAGRAPH, _TABLE):
        if element.tag == _PARAGRAPH:
            _add_paragraph(builder, element, styles)
            continue
        rows = [list(_children(row, _CELL)) for row in _children(element, _ROW)]
        if [len(row) for row in rows] == [1]:  # a frame around text
            _add_blocks(builder, rows[0][0], styles)
        else:
            builder.add_table([_text_of(cell) for cell in row] for row in rows)


def _add_paragraph(builder: DocumentBuilder, paragraph: Element, styles: _Styles) -> None:
    text = _text_of(paragraph)
    properties = paragraph.find(f"{_W}pPr")
    style_id = _value(properties, "pStyle")
    numbering = properties.find(f"{_W}numPr") if properties is not None else None
    if level := _outline_level(paragraph) or styles.heading_level(style_id):
        builder.add_heading(text, level)
    elif (numbering is not None or styles.is_list(style_id)) and text.strip():
        depth = _value(numbering, "ilvl") or "0"
        builder.add("list", "  " * (int(depth) % 10) + "- " + text.strip())
    else:
        builder.add("paragraph", text)


def _children(element: Element, *tags: str) -> Iterator[Element]:
    """Children of these kinds, those inside wrappers too."""
    for child in element:
        if child.tag in tags:
            yield child
        elif child.tag in _TRANSPARENT:
            yield from _children(child, *tags)


def _text_of(element: Element) -> str:
    return "".join(_texts(element))


def _texts(element: Element) -> Iterator[str]:
    for child in element:
        tag = child.tag
        if tag in _TEXTS:
            yield child.text or ""
        elif tag in _SIGNS:
            yield _SIGNS[tag]
        elif tag not in _SKIPPED and not (tag == _RUN and _is_hidden(child)):
            yield from _texts(child)
            if tag == _PARAGRAPH:  # in a cell, or in a text box
                yield "\n"


def _is_hidden(run: Element) -> bool:
    mark = run.find(f"{_W}rPr/{_W}vanish")
    return mark is not None and mark.get(_VALUE) not in _FALSE


def _outline_level(element: Element) -> int:
    """Level that a paragraph or style gives itself; 0 if it does not, or says that it is body text."""
    level = _value(element.find(f"{_W}pPr"), "outlineLvl") or ""
    return int(level) + 1 if level.isdigit() and int(level) < _MAX_LEVEL else 0


def _value(element: Element | None, name: str) -> str | None:
    found = element.find(f"{_W}{name}") if element is not None else None
    return found.get(_VALUE) if found is not None else None


def _related(main: Part, kind: str) -> list[Part]:
    relations: Mapping[str, Any] = main.rels
    return [each.target_part for each in relations.values() if each.reltype == kind and not each.is_external]


def _root(part: Part) -> Element:
    """Documents with macros and templates are not known to python-docx, and have no element there."""
    return part.element if isinstance(part, XmlPart) else parse_xml(part.blob)
