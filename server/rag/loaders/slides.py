"""PowerPoint presentations (pptx): a slide is a page, its title a heading; notes come after what is on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.package import Package

from server.rag.documents import ParsedDocument
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.source_file import SourceFile
from server.rag.parsing import ParseFailed

Shape = Any
"""Kinds of shapes differ in what they have, and share no type that says so."""

_FURNITURE = frozenset((PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.HEADER))


def load_pptx(source: SourceFile) -> ParsedDocument:
    with source.path.open("rb") as file:
        presentation = Package.open(file).main_document_part.presentation
    num_slides = len(presentation.slides)
    if num_slides > source.limits.max_pages:
        raise ParseFailed("invalid_file", f"the file has {num_slides} slides, more than {source.limits.max_pages}")
    builder = DocumentBuilder(source.limits)
    for page, slide in enumerate(presentation.slides, 1):
        _add_slide(builder, slide, page)
    return builder.build("application/vnd.openxmlformats-officedocument.presentationml.presentation")


def _add_slide(builder: DocumentBuilder, slide: Any, page: int) -> None:
    title = slide.shapes.title
    if title is not None:
        builder.add_heading(title.text_frame.text, 1, page=page)
    for shape in _shapes(slide.shapes):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_table:
            builder.add_table(([cell.text for cell in row.cells] for row in shape.table.rows), page=page)
        elif shape.has_text_frame:
            _add_text(builder, shape.text_frame, page)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        builder.add("paragraph", slide.notes_slide.notes_text_frame.text, page=page)


def _shapes(shapes: Iterable[Shape]) -> Iterator[Shape]:
    """All shapes, those in groups too, without slide numbers and the like."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        elif not (shape.is_placeholder and shape.placeholder_format.type in _FURNITURE):
            yield shape


def _add_text(builder: DocumentBuilder, frame: Any, page: int) -> None:
    """Several paragraphs in one frame are points of a list."""
    paragraphs = [each for each in frame.paragraphs if each.text.strip()]
    if len(paragraphs) == 1:
        builder.add("paragraph", paragraphs[0].text, page=page)
        return
    for each in paragraphs:
        builder.add("list", "  " * each.level + "- " + each.text, page=page)
