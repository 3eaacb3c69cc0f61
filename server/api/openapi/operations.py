"""Every route with what it takes and answers: the table that /openapi.json and /docs are made from.

A new route needs a line here; `tests/api/openapi/test_operations.py` fails until it has one.
"""

from __future__ import annotations

from server.api.openapi.body import Deleted, ErrorBody
from server.api.openapi.dialect_bodies import (
    AnthropicErrorBody,
    AnthropicMessage,
    AnthropicStreamEvent,
    DeletedResponse,
    ItemList,
    PromptTokens,
    ResponseStreamEvent,
    StoredResponse,
)
from server.api.openapi.encoder_bodies import (
    CohereEmbeddings,
    EmbeddingList,
    OllamaEmbedding,
    OllamaEmbeddings,
    PairScores,
    RerankResults,
    TeiError,
    TeiInfo,
    TeiRank,
    Vector,
)
from server.api.openapi.generation_bodies import (
    AppliedTemplate,
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
    DetokenizedText,
    ModelTokens,
    TextToken,
)
from server.api.openapi.operation import Operation
from server.api.openapi.server_bodies import Alive, Model, ModelList, Readiness, Version
from server.api.openapi.store_bodies import (
    FileBatch,
    FileList,
    FileObject,
    SearchResults,
    StoreEvaluation,
    StoreFile,
    StoreFileContent,
    StoreFileList,
    StoreReindexing,
    VectorStore,
    VectorStoreList,
)
from server.api.schemas.chat import ChatRequest
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.embeddings import (
    CohereEmbedRequest,
    EmbeddingRequest,
    OllamaEmbedRequest,
    OllamaLegacyRequest,
    TeiEmbedRequest,
)
from server.api.schemas.evaluation import EvaluationRequest
from server.api.schemas.files import FileListQuery, FileUpload
from server.api.schemas.messages import CountTokensRequest, MessageRequest
from server.api.schemas.rerank import RerankRequest
from server.api.schemas.responses import InputItemsQuery, ResponseRequest, RetrieveQuery
from server.api.schemas.score import ScoreRequest
from server.api.schemas.tokens import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest
from server.api.schemas.vector_stores import (
    BatchCreate,
    DocumentCreate,
    DocumentListQuery,
    DocumentUpdate,
    PageQuery,
    StoreCreate,
    StoreImportForm,
    StoreReindex,
    StoreSearch,
    StoreUpdate,
)

BODY = frozenset({400, 413, 415})
MODEL = frozenset({404, 503})
ASKS_MODEL = BODY | MODEL
GENERATES = ASKS_MODEL | {504}
READS = frozenset({404, 500, 503})
WRITES = READS | {507}
CHAT_MODEL, EMBEDDING_MODEL = "smollm2-135m-instruct", "all-minilm-l6-v2"
HELLO = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}

GENERATION = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        topic="generation",
        summary="Answer a conversation",
        body=ChatRequest,
        answer=ChatCompletion,
        events=ChatCompletionChunk,
        errors=GENERATES | READS | {409},
        example=HELLO,
    ),
    Operation(
        method="POST",
        path="/v1/completions",
        topic="generation",
        summary="Continue text as it stands",
        body=CompletionRequest,
        answer=Completion,
        events=CompletionChunk,
        errors=GENERATES,
        example={"model": CHAT_MODEL, "prompt": "Once upon a time", "max_tokens": 16},
    ),
)

RESPONSE = "/v1/responses/{response_id}"

RESPONSES = (
    Operation(
        method="POST",
        path="/v1/responses",
        topic="generation",
        summary="Answer a conversation, as OpenAI's Responses API does",
        body=ResponseRequest,
        answer=StoredResponse,
        events=ResponseStreamEvent,
        errors=GENERATES | WRITES | {409},
        example={"model": CHAT_MODEL, "input": "Say hello.", "max_output_tokens": 16},
    ),
    Operation(
        method="GET",
        path=RESPONSE,
        topic="generation",
        summary="Look at a stored response",
        query=RetrieveQuery,
        answer=StoredResponse,
        errors=READS | {400},
    ),
    Operation(
        method="DELETE",
        path=RESPONSE,
        topic="generation",
        summary="Delete a stored response",
        answer=DeletedResponse,
        errors=WRITES,
    ),
    Operation(
        method="GET",
        path=f"{RESPONSE}/input_items",
        topic="generation",
        summary="List what was sent for a stored response",
        query=InputItemsQuery,
        answer=ItemList,
        errors=READS | {400},
    ),
)

MESSAGES = (
    Operation(
        method="POST",
        path="/v1/messages",
        topic="generation",
        summary="Answer a conversation, as Anthropic's API does",
        body=MessageRequest,
        answer=AnthropicMessage,
        events=AnthropicStreamEvent,
        errors=GENERATES | READS | {409, 529},
        error_body=AnthropicErrorBody,
        example=HELLO,
    ),
    Operation(
        method="POST",
        path="/v1/messages/count_tokens",
        topic="generation",
        summary="Count the tokens of a conversation",
        body=CountTokensRequest,
        answer=PromptTokens,
        errors=ASKS_MODEL | {529},
        error_body=AnthropicErrorBody,
        example={name: value for name, value in HELLO.items() if name != "max_tokens"},
    ),
)

TOKENS = tuple(
    operation
    for base in ("/v1", "")
    for operation in (
        Operation(
            method="POST",
            path=f"{base}/tokenize",
            topic="tokens",
            summary="Tell the tokens of a text or a conversation",
            body=TokenizeRequest,
            answer=ModelTokens | list[list[TextToken]],
            errors=ASKS_MODEL,
            example={"content": "Once upon a time", "with_pieces": True},
        ),
        Operation(
            method="POST",
            path=f"{base}/detokenize",
            topic="tokens",
            summary="Tell the text of tokens",
            body=DetokenizeRequest,
            answer=DetokenizedText,
            errors=ASKS_MODEL,
            example={"tokens": [1, 2, 3]},
        ),
        Operation(
            method="POST",
            path=f"{base}/chat/apply_template",
            topic="tokens",
            summary="Tell what exactly goes into the model for a chat request",
            body=ApplyTemplateRequest,
            answer=AppliedTemplate,
            errors=ASKS_MODEL,
            example=HELLO,
        ),
    )
)

EMBEDDINGS = (
    Operation(
        method="POST",
        path="/v1/embeddings",
        topic="embeddings",
        summary="Turn texts into vectors",
        body=EmbeddingRequest,
        answer=EmbeddingList,
        errors=ASKS_MODEL,
        example={"model": EMBEDDING_MODEL, "input": ["a red cat", "a blue car"]},
    ),
    Operation(
        method="POST",
        path="/embed",
        topic="embeddings",
        summary="Turn texts into vectors, as text-embeddings-inference does",
        body=TeiEmbedRequest,
        answer=list[Vector],
        errors=ASKS_MODEL,
        example={"inputs": ["a red cat"]},
    ),
    Operation(
        method="GET",
        path="/info",
        topic="embeddings",
        summary="Tell what text-embeddings-inference tells of its model",
        answer=TeiInfo,
        errors=MODEL,
    ),
    Operation(
        method="POST",
        path="/api/embed",
        topic="embeddings",
        summary="Turn texts into vectors, as Ollama does",
        body=OllamaEmbedRequest,
        answer=OllamaEmbeddings,
        errors=ASKS_MODEL,
        example={"model": EMBEDDING_MODEL, "input": "a red cat"},
    ),
    Operation(
        method="POST",
        path="/api/embeddings",
        topic="embeddings",
        summary="Turn one text into a vector, as older versions of Ollama do",
        body=OllamaLegacyRequest,
        answer=OllamaEmbedding,
        errors=ASKS_MODEL,
        example={"model": EMBEDDING_MODEL, "prompt": "a red cat"},
    ),
    *(
        Operation(
            method="POST",
            path=path,
            topic="embeddings",
            summary="Turn texts into vectors, as Cohere does",
            body=CohereEmbedRequest,
            answer=CohereEmbeddings,
            errors=ASKS_MODEL,
            example={"texts": ["a red cat"], "input_type": "search_document"},
        )
        for path in ("/v1/embed", "/v2/embed")
    ),
)

RERANK = (
    *(
        Operation(
            method="POST",
            path=path,
            topic="rerank",
            summary="Sort documents by relevance to a query",
            body=RerankRequest,
            answer=RerankResults | list[TeiRank],
            errors=ASKS_MODEL,
            error_body=ErrorBody | TeiError,
            example={"query": "red cat", "documents": ["a blue car", "a cat that is red"], "top_n": 1},
        )
        for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")
    ),
    *(
        Operation(
            method="POST",
            path=path,
            topic="rerank",
            summary="Score pairs of texts",
            body=ScoreRequest,
            answer=PairScores,
            errors=ASKS_MODEL,
            example={"text_1": "red cat", "text_2": ["a blue car", "a cat that is red"]},
        )
        for path in ("/v1/score", "/score")
    ),
)

FILES = (
    Operation(
        method="POST",
        path="/v1/files",
        topic="files",
        summary="Upload a file",
        form=FileUpload,
        answer=FileObject,
        errors=BODY | WRITES,
    ),
    Operation(
        method="GET",
        path="/v1/files",
        topic="files",
        summary="List files",
        query=FileListQuery,
        answer=FileList,
        errors=READS | {400},
    ),
    Operation(
        method="GET",
        path="/v1/files/{file_id}",
        topic="files",
        summary="Look at a file",
        answer=FileObject,
        errors=READS,
    ),
    Operation(
        method="DELETE",
        path="/v1/files/{file_id}",
        topic="files",
        summary="Delete a file, and take it out of every vector store",
        answer=Deleted,
        errors=WRITES,
    ),
    Operation(
        method="GET",
        path="/v1/files/{file_id}/content",
        topic="files",
        summary="Download a file",
        media_type="application/octet-stream",
        errors=READS,
    ),
)

STORE = "/v1/vector_stores/{store_id}"

VECTOR_STORES = (
    Operation(
        method="POST",
        path="/v1/vector_stores",
        topic="vector stores",
        summary="Make a vector store",
        body=StoreCreate,
        answer=VectorStore,
        errors=ASKS_MODEL | WRITES,
        example={"name": "kitchen", "metadata": {"team": "bakery"}},
    ),
    Operation(
        method="GET",
        path="/v1/vector_stores",
        topic="vector stores",
        summary="List vector stores",
        query=PageQuery,
        answer=VectorStoreList,
        errors=READS | {400},
    ),
    Operation(
        method="POST",
        path="/v1/vector_stores/import",
        topic="vector stores",
        summary="Make a vector store of an exported one",
        form=StoreImportForm,
        answer=VectorStore,
        errors=BODY | WRITES,
    ),
    Operation(method="GET", path=STORE, topic="vector stores", summary="Look at one", answer=VectorStore, errors=READS),
    Operation(
        method="POST",
        path=STORE,
        topic="vector stores",
        summary="Change its name, metadata or expiry",
        body=StoreUpdate,
        answer=VectorStore,
        errors=BODY | WRITES,
        example={"name": "bakery"},
    ),
    Operation(method="DELETE", path=STORE, topic="vector stores", summary="Delete one", answer=Deleted, errors=WRITES),
    Operation(
        method="POST",
        path=f"{STORE}/search",
        topic="vector stores",
        summary="Find what it has on a question",
        body=StoreSearch,
        answer=SearchResults,
        errors=ASKS_MODEL | READS | {409},
        example={"query": "How long do I knead dough?", "max_num_results": 3},
    ),
    Operation(
        method="POST",
        path=f"{STORE}/evaluate",
        topic="vector stores",
        summary="Measure how well it finds things",
        body=EvaluationRequest,
        answer=StoreEvaluation,
        errors=ASKS_MODEL | READS | {409, 504},
        example={"known_item": {"num_questions": 50}},
    ),
    Operation(
        method="POST",
        path=f"{STORE}/reindex",
        topic="vector stores",
        summary="Embed it anew, with another model",
        body=StoreReindex,
        answer=StoreReindexing,
        errors=ASKS_MODEL | WRITES | {409},
        example={},
    ),
    Operation(
        method="GET",
        path=f"{STORE}/reindex",
        topic="vector stores",
        summary="See how far that is",
        answer=StoreReindexing,
        errors=READS,
    ),
    Operation(
        method="POST",
        path=f"{STORE}/reindex/cancel",
        topic="vector stores",
        summary="Stop it",
        answer=StoreReindexing,
        errors=WRITES,
    ),
    Operation(
        method="GET",
        path=f"{STORE}/export",
        topic="vector stores",
        summary="Download it as one file",
        media_type="application/octet-stream",
        errors=READS,
    ),
    Operation(
        method="POST",
        path=f"{STORE}/files",
        topic="vector stores",
        summary="Put a file into it",
        body=DocumentCreate,
        answer=StoreFile,
        errors=BODY | WRITES | {409},
        example={"file_id": "file-1", "attributes": {"year": 2005}},
    ),
    Operation(
        method="GET",
        path=f"{STORE}/files",
        topic="vector stores",
        summary="List the files in it",
        query=DocumentListQuery,
        answer=StoreFileList,
        errors=READS | {400},
    ),
    Operation(
        method="GET",
        path=f"{STORE}/files/{{file_id}}",
        topic="vector stores",
        summary="Look at a file in it, with its progress",
        answer=StoreFile,
        errors=READS,
    ),
    Operation(
        method="POST",
        path=f"{STORE}/files/{{file_id}}",
        topic="vector stores",
        summary="Change the attributes of a file in it",
        body=DocumentUpdate,
        answer=StoreFile,
        errors=BODY | WRITES | {409},
        example={"attributes": {"year": 2006}},
    ),
    Operation(
        method="DELETE",
        path=f"{STORE}/files/{{file_id}}",
        topic="vector stores",
        summary="Take a file out of it",
        answer=Deleted,
        errors=WRITES,
    ),
    Operation(
        method="GET",
        path=f"{STORE}/files/{{file_id}}/content",
        topic="vector stores",
        summary="Tell the text that was read in a file",
        answer=StoreFileContent,
        errors=READS,
    ),
    Operation(
        method="POST",
        path=f"{STORE}/file_batches",
        topic="vector stores",
        summary="Put many files into it",
        body=BatchCreate,
        answer=FileBatch,
        errors=BODY | WRITES | {409},
        example={"file_ids": ["file-1", "file-2"]},
    ),
    Operation(
        method="GET",
        path=f"{STORE}/file_batches/{{batch_id}}",
        topic="vector stores",
        summary="Look at a batch",
        answer=FileBatch,
        errors=READS,
    ),
    Operation(
        method="POST",
        path=f"{STORE}/file_batches/{{batch_id}}/cancel",
        topic="vector stores",
        summary="Stop what is in progress of a batch",
        answer=FileBatch,
        errors=WRITES,
    ),
    Operation(
        method="GET",
        path=f"{STORE}/file_batches/{{batch_id}}/files",
        topic="vector stores",
        summary="List the files of a batch",
        query=DocumentListQuery,
        answer=StoreFileList,
        errors=READS | {400},
    ),
)

MODELS = (
    Operation(method="GET", path="/v1/models", topic="models", summary="List the models", answer=ModelList),
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

OPERATIONS: tuple[Operation, ...] = (
    *GENERATION,
    *RESPONSES,
    *MESSAGES,
    *TOKENS,
    *EMBEDDINGS,
    *RERANK,
    *FILES,
    *VECTOR_STORES,
    *MODELS,
    *SERVER,
)
