"""Routes that tell of the models and of the server."""

from __future__ import annotations

from server.api.openapi.operation import READS, Operation
from server.api.openapi.operator_bodies import RequestList, RequestsCancelled, UsageReport
from server.api.openapi.server_bodies import Alive, LogLines, Model, ModelList, Readiness, Reload, Version
from server.api.schemas.admin import LogQuery
from server.api.schemas.usage import UsageReportQuery

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

OPERATORS = (
    Operation(
        method="GET",
        path="/v1/usage",
        topic="usage",
        summary="Tell who used which model for how much",
        query=UsageReportQuery,
        answer=UsageReport,
        errors=(READS - {404}) | {400},
    ),
    Operation(
        method="GET",
        path="/admin/requests",
        topic="server",
        summary="List requests that are live, and the last that were",
        answer=RequestList,
    ),
    Operation(
        method="DELETE",
        path="/admin/requests/{request_id}",
        topic="server",
        summary="Cancel live requests, by their id",
        answer=RequestsCancelled,
        errors=frozenset({404, 409}),
    ),
    Operation(
        method="GET",
        path="/metrics",
        topic="server",
        summary="Tell Prometheus how the server does",
        media_type="text/plain",
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
        errors=frozenset({400, 503}),
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
    Operation(
        method="GET",
        path="/version",
        topic="server",
        summary="Tell Hearth's version",
        answer=Version,
        errors=frozenset({503}),
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        topic="server",
        summary="Describe this API, as OpenAPI 3.1",
        answer=dict[str, object],
        errors=frozenset({503}),
    ),
    Operation(
        method="GET",
        path="/docs",
        topic="server",
        summary="Describe this API as a page",
        media_type="text/html",
        errors=frozenset({503}),
    ),
)
