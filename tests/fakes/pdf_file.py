"""PDF files, written by hand: text at given places and sizes, and whatever else a test wants in them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

Line = tuple[float, float, str]
"""Size of type, distance from the lower edge, both in points; text."""


def pdf(*pages: Sequence[Line], trailer: str = "") -> bytes:
    """A page for each list of lines."""
    return pdf_of_streams([_content(lines) for lines in pages], trailer=trailer)


def pdf_of_streams(streams: Sequence[bytes], *, filters: str = "/FlateDecode", trailer: str = "") -> bytes:
    """A page for each content stream; streams are packed already, as `filters` says."""
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(streams)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(streams)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for index, stream in enumerate(streams):
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * index} 0 R"
        objects.append(f"{page} /Resources << /Font << /F1 3 0 R >> >> >>".encode())
        head = f"<< /Length {len(stream)} /Filter [{filters}] >>\nstream\n".encode()
        objects.append(head + stream + b"\nendstream")
    return _file(objects, trailer)


def _content(lines: Sequence[Line]) -> bytes:
    shown = (f"/F1 {size} Tf 1 0 0 1 72 {height} Tm ({_escaped(text)}) Tj" for size, height, text in lines)
    return zlib.compress(f"BT {' '.join(shown)} ET".encode("cp1252"))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _file(objects: Sequence[bytes], trailer: str) -> bytes:
    content = b"%PDF-1.7\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{len(content)}\n%%EOF\n"
    return content + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end.encode()
