"""The form of an upload and the queries of files: OpenAI's, with `if_unused` besides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from server.api.schemas.wire import TextFlag, TextInteger, WireModel

Order = Literal["asc", "desc"]
FilePurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]

MAX_FILES_LISTED = 10_000


class FileExpiry(WireModel):
    anchor: Literal["created_at"]
    seconds: Annotated[TextInteger, Field(ge=3600, le=30 * 86_400)]


class FileUpload(WireModel):
    """`POST /v1/files`, besides the file."""

    purpose: FilePurpose
    expires_after: FileExpiry | None = None


class FileDeleteQuery(WireModel):
    """`DELETE /v1/files/{file_id}`."""

    if_unused: TextFlag = False
    """only if no vector store has the file"""


class FileListQuery(WireModel):
    """`GET /v1/files`."""

    purpose: str | None = None
    limit: Annotated[TextInteger, Field(ge=1, le=MAX_FILES_LISTED)] = MAX_FILES_LISTED
    order: Order = "desc"
    after: str | None = None
