"""`/v1/vector_stores/{id}/export` and `/v1/vector_stores/import`: a store as one file."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from server.api.attachment import ATTACHMENT_HEADERS, attachment
from server.api.json_response import JsonResponse
from server.api.schemas.vector_stores import StoreImportForm
from server.api.tenant import tenant_of
from server.api.upload import Upload
from server.api.vector_stores import store_body
from server.services.transfers import TransferService

EXTENSION = ".hearth"


class TransferEndpoint:
    def __init__(self, service: TransferService, max_import_bytes: int) -> None:
        self._service = service
        self._max_import_bytes = max_import_bytes

    async def download(self, request: Request) -> Response:
        """Should reading fail in the middle, the answer is cut off, which every client notices."""
        store, parts = await self._service.export_store(tenant_of(request), str(request.path_params["store_id"]))
        name = f"{(store.name or store.id).replace('/', ' ')}{EXTENSION}"
        headers = {**ATTACHMENT_HEADERS, "content-disposition": attachment(name)}
        return StreamingResponse(parts, headers=headers, media_type="application/octet-stream")

    async def upload(self, request: Request) -> Response:
        """Goes on to its end when the client leaves after its last byte: another look at the list tells."""
        upload = Upload(request, self._max_import_bytes)

        def name() -> str | None:
            return upload.form(StoreImportForm).name

        return JsonResponse(store_body(await self._service.import_store(tenant_of(request), upload.chunks(), name)))
