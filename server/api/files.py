"""`/v1/files`: upload, list, look at, download and delete files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from server.api.attachment import ATTACHMENT_HEADERS, attachment
from server.api.json_response import JsonResponse
from server.api.query import list_body, read_query
from server.api.schemas.files import FileDeleteQuery, FileListQuery, FileUpload
from server.api.tenant import tenant_of
from server.api.upload import Upload
from server.errors import ObjectNotFound
from server.rag.documents import FileRecord
from server.rag.paging import Page
from server.services.files import FileService, UploadDetails


class FileEndpoint:
    def __init__(self, service: FileService, max_upload_bytes: int) -> None:
        self._service = service
        self._max_upload_bytes = max_upload_bytes

    async def create(self, request: Request) -> Response:
        upload = Upload(request, self._max_upload_bytes)

        def details() -> UploadDetails:
            form = upload.form(FileUpload)
            expires_after_s = form.expires_after.seconds if form.expires_after else None
            return UploadDetails(filename=upload.filename, purpose=form.purpose, expires_after_s=expires_after_s)

        return JsonResponse(file_body(await self._service.upload(tenant_of(request), upload.chunks(), details)))

    async def list(self, request: Request) -> Response:
        wanted = read_query(request, FileListQuery)
        page = Page(limit=wanted.limit, order=wanted.order, after=wanted.after)
        records, has_more = await self._service.list(tenant_of(request), purpose=wanted.purpose, page=page)
        # There may be 10,000, for which the event loop would stand still for 30 ms.
        return await asyncio.to_thread(_list_response, records, has_more=has_more)

    async def get(self, request: Request) -> Response:
        return JsonResponse(file_body(await self._service.get(tenant_of(request), request.path_params["file_id"])))

    async def content(self, request: Request) -> Response:
        record, path = await self._service.content(tenant_of(request), request.path_params["file_id"])
        try:
            status = await asyncio.to_thread(path.stat)
        except FileNotFoundError as exc:
            raise ObjectNotFound(f"file {record.id!r} has just been deleted") from exc
        headers = {**ATTACHMENT_HEADERS, "content-disposition": attachment(record.filename)}
        return _WholeFile(path, headers=headers, media_type="application/octet-stream", stat_result=status)

    async def delete(self, request: Request) -> Response:
        file_id = request.path_params["file_id"]
        wanted = read_query(request, FileDeleteQuery)
        await self._service.delete(tenant_of(request), file_id, if_unused=wanted.if_unused)
        return JsonResponse({"id": file_id, "object": "file", "deleted": True})


class _WholeFile(FileResponse):
    """Starlette's, without ranges: it refuses wrong ones in plain text, not in this API's shape."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _list_response(records: Sequence[FileRecord], *, has_more: bool) -> Response:
    return JsonResponse(list_body([file_body(record) for record in records], has_more=has_more))


def file_body(record: FileRecord) -> dict[str, Any]:
    """OpenAI's file object; `x` holds what it has no field for."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.num_bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
        "x": {"sha256": record.sha256},
    }
