"""The whole route table. What each route takes and answers is described in `openapi/*_operations.py`."""

from __future__ import annotations

from starlette.routing import Route

from server.api.admin import AdminEndpoint
from server.api.body import JsonBody
from server.api.chat import ChatEndpoint
from server.api.cohere import CohereEndpoint
from server.api.completions import CompletionEndpoint
from server.api.embeddings import EmbeddingEndpoint
from server.api.evaluation import EvaluationEndpoint
from server.api.files import FileEndpoint
from server.api.health import HealthEndpoint
from server.api.messages import MessageEndpoint
from server.api.metrics import MetricsEndpoint
from server.api.models import ModelEndpoint
from server.api.ollama import OllamaEndpoint
from server.api.openapi.endpoint import DescriptionEndpoint
from server.api.reindexing import ReindexEndpoint
from server.api.requests import RequestEndpoint
from server.api.rerank import RerankEndpoint
from server.api.responses import ResponseEndpoint
from server.api.score import ScoreEndpoint
from server.api.tei import TeiEndpoint
from server.api.tokens import TokenEndpoint
from server.api.transfers import TransferEndpoint
from server.api.usage_report import UsageEndpoint
from server.api.vector_stores import BatchEndpoint, DocumentEndpoint, VectorStoreEndpoint
from server.config.server_section import Limits
from server.services import Services

READY_PATHS = ("/ready", "/health/ready", "/readyz")
HEALTH_PATHS = ("/health", "/health/live", "/livez", *READY_PATHS)
"""Asked every few seconds by machines."""

QUIET_PATHS = (*HEALTH_PATHS, "/metrics")
"""Of these, the access log has no lines, and nothing is measured."""

UPLOAD_PATHS = ("/v1/files", "/v1/vector_stores/import")
"""Whose bodies are written to the disk as they come, however large."""

RERANK_PATHS = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")
"""Wherever a client of some API looks for rerank; see `rerank_dialects`."""


def build_routes(services: Services, limits: Limits) -> list[Route]:
    body = JsonBody(limits.max_body_mb * 1024 * 1024)
    return [
        *_chat_routes(services, body),
        *_message_routes(services, body),
        *_response_routes(services, body),
        *_embedding_routes(services, body, limits),
        *_token_routes(services, body),
        *_rerank_routes(services, body),
        *_file_routes(services, limits),
        *_vector_store_routes(services, body, limits),
        *_document_routes(services, body),
        *_model_routes(services),
        *_operator_routes(services),
        *_health_routes(services),
        *_description_routes(services),
    ]


def _chat_routes(services: Services, body: JsonBody) -> list[Route]:
    fingerprint = f"hearth-{services.version}"
    chat = ChatEndpoint(services.chat, body, fingerprint=fingerprint)
    completions = CompletionEndpoint(services.completions, body, fingerprint=fingerprint)
    return [
        Route("/v1/chat/completions", chat.create, methods=["POST"]),
        Route("/v1/completions", completions.create, methods=["POST"]),
    ]


def _message_routes(services: Services, body: JsonBody) -> list[Route]:
    messages = MessageEndpoint(services.chat, body)
    return [
        Route("/v1/messages", messages.create, methods=["POST"]),
        Route("/v1/messages/count_tokens", messages.count_tokens, methods=["POST"]),
    ]


def _response_routes(services: Services, body: JsonBody) -> list[Route]:
    responses = ResponseEndpoint(services.chat, services.responses, body)
    return [
        Route("/v1/responses", responses.create, methods=["POST"]),
        Route("/v1/responses/{response_id}", responses.get),
        Route("/v1/responses/{response_id}", responses.delete, methods=["DELETE"]),
        Route("/v1/responses/{response_id}/input_items", responses.input_items),
    ]


def _embedding_routes(services: Services, body: JsonBody, limits: Limits) -> list[Route]:
    embeddings = EmbeddingEndpoint(services.embeddings, body)
    tei = TeiEndpoint(services, body, limits)
    ollama = OllamaEndpoint(services.embeddings, body)
    cohere = CohereEndpoint(services.embeddings, body)
    return [
        Route("/v1/embeddings", embeddings.create, methods=["POST"]),
        Route("/embed", tei.embed, methods=["POST"]),
        Route("/info", tei.info),
        Route("/api/embed", ollama.embed, methods=["POST"]),
        Route("/api/embeddings", ollama.embed_one, methods=["POST"]),
        Route("/v1/embed", cohere.embed_v1, methods=["POST"]),
        Route("/v2/embed", cohere.embed_v2, methods=["POST"]),
    ]


def _token_routes(services: Services, body: JsonBody) -> list[Route]:
    tokens = TokenEndpoint(services.tokens, services.embeddings, body)
    return [
        Route(f"{base}{path}", endpoint, methods=["POST"])
        for base in ("/v1", "")
        for path, endpoint in (
            ("/tokenize", tokens.tokenize),
            ("/detokenize", tokens.detokenize),
            ("/chat/apply_template", tokens.apply_template),
        )
    ]


def _rerank_routes(services: Services, body: JsonBody) -> list[Route]:
    rerank = RerankEndpoint(services.rerank, body)
    score = ScoreEndpoint(services.rerank, body)
    return [
        *(Route(path, rerank.create, methods=["POST"]) for path in RERANK_PATHS),
        Route("/v1/score", score.create, methods=["POST"]),
        Route("/score", score.create, methods=["POST"]),
    ]


def _file_routes(services: Services, limits: Limits) -> list[Route]:
    files = FileEndpoint(services.files, limits.max_upload_mb * 1024 * 1024)
    return [
        Route("/v1/files", files.create, methods=["POST"]),
        Route("/v1/files", files.list),
        Route("/v1/files/{file_id}", files.get),
        Route("/v1/files/{file_id}", files.delete, methods=["DELETE"]),
        Route("/v1/files/{file_id}/content", files.content),
    ]


def _vector_store_routes(services: Services, body: JsonBody, limits: Limits) -> list[Route]:
    stores = VectorStoreEndpoint(services.vector_stores, body)
    evaluation = EvaluationEndpoint(services.evaluation, body)
    reindexing = ReindexEndpoint(services.reindexing, body)
    transfers = TransferEndpoint(services.transfers, limits.max_import_mb * 1024 * 1024)
    return [
        Route("/v1/vector_stores", stores.create, methods=["POST"]),
        Route("/v1/vector_stores", stores.list),
        Route("/v1/vector_stores/import", transfers.upload, methods=["POST"]),  # before what takes it for an id
        Route("/v1/vector_stores/{store_id}", stores.get),
        Route("/v1/vector_stores/{store_id}", stores.update, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}", stores.delete, methods=["DELETE"]),
        Route("/v1/vector_stores/{store_id}/search", stores.search, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/evaluate", evaluation.create, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/reindex", reindexing.create, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/reindex", reindexing.get),
        Route("/v1/vector_stores/{store_id}/reindex/cancel", reindexing.cancel, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/export", transfers.download),
    ]


def _document_routes(services: Services, body: JsonBody) -> list[Route]:
    documents = DocumentEndpoint(services.vector_stores, body)
    batches = BatchEndpoint(services.vector_stores, body)
    return [
        Route("/v1/vector_stores/{store_id}/files", documents.create, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/files", documents.list),
        Route("/v1/vector_stores/{store_id}/files/{file_id}", documents.get),
        Route("/v1/vector_stores/{store_id}/files/{file_id}", documents.update, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/files/{file_id}", documents.delete, methods=["DELETE"]),
        Route("/v1/vector_stores/{store_id}/files/{file_id}/content", documents.content),
        Route("/v1/vector_stores/{store_id}/file_batches", batches.create, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/file_batches/{batch_id}", batches.get),
        Route("/v1/vector_stores/{store_id}/file_batches/{batch_id}/cancel", batches.cancel, methods=["POST"]),
        Route("/v1/vector_stores/{store_id}/file_batches/{batch_id}/files", batches.list_files),
    ]


def _model_routes(services: Services) -> list[Route]:
    models = ModelEndpoint(services.models, services.loading)
    return [
        Route("/v1/models", models.list),
        Route("/v1/models/{model:path}/load", models.load, methods=["POST"]),
        Route("/v1/models/{model:path}/unload", models.unload, methods=["POST"]),
        Route("/v1/models/{model:path}", models.get),  # aliases may hold slashes
    ]


def _operator_routes(services: Services) -> list[Route]:
    usage, requests = UsageEndpoint(services.usage), RequestEndpoint(services.requests)
    admin = AdminEndpoint(services.loading, services.reload)
    return [
        Route("/v1/usage", usage.report),
        Route("/admin/requests", requests.list),
        Route("/admin/requests/{request_id}", requests.cancel, methods=["DELETE"]),
        Route("/admin/reload", admin.reload, methods=["POST"]),
        Route("/admin/logs", admin.logs),
        Route("/metrics", MetricsEndpoint(services.metrics).page),
    ]


def _health_routes(services: Services) -> list[Route]:
    health = HealthEndpoint(services.models, services.version)
    return [
        Route("/health", health.live),
        Route("/health/live", health.live),
        Route("/livez", health.live),
        Route("/ready", health.ready),
        Route("/health/ready", health.ready),
        Route("/readyz", health.ready),
        Route("/version", health.version),
    ]


def _description_routes(services: Services) -> list[Route]:
    description = DescriptionEndpoint(services.version)
    return [
        Route("/openapi.json", description.document),
        Route("/docs", description.page),
    ]
