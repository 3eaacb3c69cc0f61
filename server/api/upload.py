"""Read an upload, `multipart/form-data` with one file, as it arrives: the file is handed on, never held or spooled."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TypeVar

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from server.api.body import check_headers, declared_length
from server.api.schemas.wire import WireModel
from server.api.validation import MAX_SHOWN, to_invalid_request
from server.errors import InvalidRequest, RequestTooLarge
from server.rag.file_name import clean_file_name

FILE = "file"
"""Name of the part that is the file."""

MAX_OVERHEAD_BYTES = 64 * 1024
"""What a body may hold besides the file: boundaries, headers, fields."""

MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024

_FIELD_NAME = re.compile(r"(\w{1,64})(?:\[(\w{1,64})\])?", re.ASCII)
"""`purpose`, or `expires_after[seconds]` for a field of an object."""

Form = TypeVar("Form", bound=WireModel)


class Upload:
    """The body of one request. Read `chunks` to the end; then `filename` and `form` are known, for they may come last.

    Args:
        max_bytes: Of the file.
    """

    def __init__(self, request: Request, max_bytes: int) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._parts = _Parts()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the file.

        Raises:
            UnsupportedMediaType: Not `multipart/form-data`, or compressed.
            RequestTooLarge: The body is larger than file and fields may be; what has been yielded may be somewhat more
                than `max_bytes`.
            InvalidRequest: The body is broken or ends early, has no file or several, or a field is too long.
            ClientDisconnect: The client went away meanwhile.
        """
        check_headers(self._request, "multipart/form-data")
        if declared_length(self._request) > self._max_bytes + MAX_OVERHEAD_BYTES:
            raise self._too_large()
        parser = self._parser()
        num_bytes = 0
        async for data in self._request.stream():
            num_bytes += len(data)
            if num_bytes > self._max_bytes + MAX_OVERHEAD_BYTES:
                raise self._too_large()
            try:
                parser.write(data)
            except FormParserError as exc:
                raise _broken(str(exc)) from exc
            if chunk := self._parts.take():
                yield chunk
        self._parts.check_complete()

    @property
    def filename(self) -> str:
        assert self._parts.filename is not None, "the body has not been read to its end"
        return self._parts.filename

    def form(self, schema: type[Form]) -> Form:
        """The fields besides the file, as `schema`.

        Raises:
            InvalidRequest: A field is missing, unknown or wrong; `param` names it.
        """
        values = _nested(self._parts.fields)
        try:
            return schema.model_validate(values)
        except ValidationError as exc:
            raise to_invalid_request(exc, values, schema) from exc

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"the file is larger than {self._max_bytes} bytes; split it", param=FILE)

    def _parser(self) -> MultipartParser:
        _, options = parse_options_header(self._request.headers["content-type"])
        boundary, parts = options.get(b"boundary"), self._parts
        if not boundary:
            raise _broken("content-type names no boundary")
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": parts.begin,
                    "on_header_field": parts.add_header_name,
                    "on_header_value": parts.add_header_value,
                    "on_header_end": parts.end_header,
                    "on_headers_finished": parts.begin_content,
                    "on_part_data": parts.add_content,
                    "on_part_end": parts.end,
                    "on_end": parts.end_all,
                },
            )
        except FormParserError as exc:
            raise _broken(str(exc)) from exc


class _Parts:
    """What the parser tells, in the order of its calls: for each part `begin` to `end`, and `end_all`."""

    def __init__(self) -> None:
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._file_data: list[bytes] = []
        self._header = (bytearray(), bytearray())  # name and value of the one that is being read
        self._disposition = b""
        self._field = ""  # name of the field that is being read; empty in the file
        self._value = bytearray()
        self._is_complete = False

    def take(self) -> bytes:
        """What has come of the file since the last call."""
        data = b"".join(self._file_data)
        self._file_data.clear()
        return data

    def check_complete(self) -> None:
        if not self._is_complete:
            raise _broken("it ends before its closing boundary")
        if self.filename is None:
            raise InvalidRequest(f"{FILE} is required", param=FILE, code="missing_required_parameter")

    def begin(self) -> None:
        self._disposition = b""

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", errors="replace")
        is_file = b"filename" in options
        if not _FIELD_NAME.fullmatch(name):
            raise _broken(f"a part is named {name[:MAX_SHOWN]!r}")
        if is_file != (name == FILE):
            raise InvalidRequest(
                f"{name} is {'a file' if is_file else 'a field'}; send the file as {FILE!r}, with a file name, "
                "and fields without one",
                param=name,
            )
        if is_file and self.filename is not None:
            raise InvalidRequest("there is more than one file; send one at a time", param=FILE)
        if is_file:
            self.filename = clean_file_name(options[b"filename"])
        elif name in self.fields:  # each costs time, and a body has room for millions
            raise InvalidRequest(f"there is more than one {name}; send it once", param=name)
        elif len(self.fields) == MAX_FIELDS:
            raise _broken(f"it has more than {MAX_FIELDS} fields")
        self._field = "" if is_file else name
        self._value = bytearray()

    def add_content(self, data: bytes, start: int, end: int) -> None:
        if not self._field:
            self._file_data.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise InvalidRequest(f"{self._field} is longer than {MAX_FIELD_BYTES} bytes", param=self._field)

    def end(self) -> None:
        if self._field:
            self.fields[self._field] = self._value.decode("utf-8", errors="replace")

    def end_all(self) -> None:
        self._is_complete = True


def _nested(fields: dict[str, str]) -> dict[str, object]:
    """`{"a[b]": "1"}` to `{"a": {"b": "1"}}`."""
    values: dict[str, object] = {}
    for field, value in fields.items():
        matched = _FIELD_NAME.fullmatch(field)
        assert matched is not None, "checked when the part began"
        outer, inner = matched.groups()
        if inner is None:
            values[outer] = value
            continue
        inside = values.setdefault(outer, {})
        if isinstance(inside, dict):  # else it was sent as a text too, which the schema refuses
            inside[inner] = value
    return values


def _broken(reason: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not valid multipart/form-data: {reason}")
