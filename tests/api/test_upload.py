"""Multipart bodies: read piece by piece, never held, refused with the field at fault."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from server.api.errors import UnsupportedMediaType
from server.api.schemas.files import FileUpload
from server.api.upload import MAX_OVERHEAD_BYTES, Upload
from server.errors import HearthError, InvalidRequest, RequestTooLarge

BOUNDARY = "xyz"
MAX_BYTES = 1000


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


PURPOSE = part("purpose", b"assistants")
FILE = part("file", b"hello", "a.txt")


def upload_of(content: bytes, *, piece: int = 1 << 16, **headers: str) -> Upload:
    """The body, arriving in pieces."""
    pieces = [content[at : at + piece] for at in range(0, len(content), piece)]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    named = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    return Upload(Request({"type": "http", "method": "POST", "headers": raw}, receive), MAX_BYTES)


async def read(upload: Upload) -> bytes:
    return b"".join([chunk async for chunk in upload.chunks()])


@pytest.mark.parametrize("parts", [(PURPOSE, FILE), (FILE, PURPOSE)], ids=["field first", "file first"])
async def test_fields_may_come_before_the_file_or_after_it(parts: tuple[bytes, ...]) -> None:
    upload = upload_of(body(*parts))

    assert await read(upload) == b"hello"
    assert (upload.filename, upload.form(FileUpload).purpose) == ("a.txt", "assistants")


@given(st.binary(max_size=300), st.integers(1, 40))
@example(BOUNDARY[-1:].encode(), 1)
async def test_any_content_arrives_whole_however_it_is_cut(content: bytes, piece: int) -> None:
    tricky = content + f"\r\n--{BOUNDARY[:-1]}.".encode() + content  # all but a boundary

    assert await read(upload_of(body(PURPOSE, part("file", tricky, "a")), piece=piece)) == tricky


async def test_the_file_is_handed_on_as_it_comes() -> None:
    content = b"x" * 900
    upload = upload_of(body(PURPOSE, part("file", content, "a")), piece=100)

    chunks = [chunk async for chunk in upload.chunks()]

    assert len(chunks) >= 9 and max(map(len, chunks)) <= 200


async def test_fields_of_objects_are_nested() -> None:
    expiry = part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"3600")
    upload = upload_of(body(PURPOSE, expiry, FILE))
    await read(upload)

    expires_after = upload.form(FileUpload).expires_after

    assert expires_after is not None and expires_after.seconds == 3600


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"", None),
        (b"junk", None),
        (PURPOSE + FILE, None),  # no end
        (body(PURPOSE), "file"),
        (body(PURPOSE, FILE, FILE), "file"),
        (body(PURPOSE, PURPOSE, FILE), "purpose"),  # of which there is room for millions
        (body(PURPOSE, part("file", b"hello")), "file"),
        (body(PURPOSE, part("image", b"hello", "a.png")), "image"),
        (body(part("purpose", b"x" * 2000), FILE), "purpose"),
        (body(*(part(f"f{n}", b"x") for n in range(20)), FILE), None),
        (body(part("a b", b"x"), FILE), None),
        (body(PURPOSE, part("file", b"x", "../..")), "file"),
        (body(PURPOSE, f"--{BOUNDARY}\r\nno header\r\n\r\nx\r\n".encode()), None),
        (body(PURPOSE, part("file", b"x", "a" * 9000)), None),
    ],
)
async def test_a_body_that_is_no_upload_is_refused(content: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await read(upload_of(content))

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        (b"", "purpose", "missing_required_parameter"),
        (part("purpose", b"fun"), "purpose", "invalid_value"),
        (PURPOSE + part("colour", b"red"), "colour", "unknown_parameter"),
        (PURPOSE + part("expires_after[seconds]", b"3600"), "expires_after.anchor", "missing_required_parameter"),
        (
            PURPOSE + part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"1"),
            "expires_after.seconds",
            "invalid_value",
        ),
        (
            PURPOSE + part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"soon"),
            "expires_after.seconds",
            "invalid_type",
        ),
        (PURPOSE + part("expires_after", b"x") + part("expires_after[seconds]", b"1"), "expires_after", "invalid_type"),
    ],
)
async def test_a_wrong_field_is_named(fields: bytes, param: str, code: str) -> None:
    upload = upload_of(body(fields, FILE))
    await read(upload)

    with pytest.raises(InvalidRequest) as refused:
        upload.form(FileUpload)

    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize("declared", [None, str(MAX_BYTES + MAX_OVERHEAD_BYTES + 1), "9" * 30])
async def test_too_large_a_body_is_refused_by_what_it_says_and_by_what_it_is(declared: str | None) -> None:
    content = body(PURPOSE, part("file", b"x" * (MAX_BYTES + MAX_OVERHEAD_BYTES), "a"))
    headers = {"content_length": declared} if declared else {}
    num_bytes = 0

    with pytest.raises(RequestTooLarge):
        async for chunk in upload_of(content, piece=5000, **headers).chunks():
            num_bytes += len(chunk)

    assert num_bytes == 0 if declared else num_bytes <= MAX_BYTES + MAX_OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"content_type": "application/json"}, UnsupportedMediaType),
        (
            {"content_type": f"multipart/form-data; boundary={BOUNDARY}", "content_encoding": "gzip"},
            UnsupportedMediaType,
        ),
        ({"content_type": "multipart/form-data"}, InvalidRequest),
        ({"content_type": f"multipart/form-data; boundary={'x' * 300}"}, InvalidRequest),
        ({"content_length": "many"}, InvalidRequest),
    ],
)
async def test_headers_that_do_not_fit_are_refused(headers: dict[str, str], error: type[HearthError]) -> None:
    with pytest.raises(error):
        await read(upload_of(body(PURPOSE, FILE), **headers))
