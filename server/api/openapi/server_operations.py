"""Routes that tell of the models and of the server."""

from __future__ import annotations

from server.api.openapi.operation import Operation
from server.api.openapi.server_bodies import Alive, LogLines, Model, ModelList, Readiness, Reload, Version
from server.api.schemas.admin import LogQuery

MODELS = (
    Operation(method="GET", path="/v1/models", topic="models", summary="List the models", answer=ModelList),
    Operation(
        method="POST",
        path="/v1/models/{model}/load",
        topic="models",
        summary="Load a model",
        answer=Model,
        may_go_on=True,
        errors=frozenset({400, 404, 503}),
    ),
    Operation(
        method="POST",
        path="/v1/models/{model}/unload",
        topic="models",
        summary="Unload a model",
        answer=Model,
        may_go_on=True,
        errors=frozenset({400, 404}),
    ),
    Operation(
        method="GET",
        path="/v1/models/{model}",
        topic="models",
        summary="Look at a model, by id or alias",
        answer=Model,
        errors=frozenset({404}),
    ),
)

SERVER = (
    *(
        Operation(method="GET", path=path, topic="server", summary="Tell that the process lives", answer=Alive)
        for path in ("/health", "/health/live", "/livez")
    ),
    *(
        Operation(
            method="GET",
            path=path,
            topic="server",
            summary="Tell whether every model is loaded",
            answer=Readiness,
            unready=Readiness,
        )
        for path in ("/ready", "/health/ready", "/readyz")
    ),
    Operation(
        method="POST",
        path="/admin/reload",
        topic="server",
        summary="Put models.yaml in force as it is now",
        answer=Reload,
        errors=frozenset({400}),
    ),
    Operation(
        method="GET",
        path="/admin/logs",
        topic="server",
        summary="Tell what workers have logged lately",
        query=LogQuery,
        answer=LogLines,
        errors=frozenset({400, 404}),
    ),
    Operation(method="GET", path="/version", topic="server", summary="Tell Hearth's version", answer=Version),
    Operation(
        method="GET",
        path="/openapi.json",
        topic="server",
        summary="Describe this API, as OpenAPI 3.1",
        answer=dict[str, object],
    ),
    Operation(
        method="GET",
        path="/docs",
        topic="server",
        summary="Describe this API as a page",
        media_type="text/html",
    ),
)
