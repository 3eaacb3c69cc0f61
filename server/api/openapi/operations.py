"""Every route with what it takes and answers: the table that /openapi.json and /docs are made from.

A new route needs an `Operation` in the file of its topic, beside this one; `tests/api/openapi/test_operations.py` fails
until it has one.
"""

from __future__ import annotations

from server.api.openapi.encoder_operations import EMBEDDINGS, RERANK
from server.api.openapi.generation_operations import GENERATION, MESSAGES, RESPONSES, TOKENS
from server.api.openapi.operation import Operation
from server.api.openapi.server_operations import MODELS, OPERATORS, SERVER
from server.api.openapi.store_operations import FILES, VECTOR_STORES

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
    *OPERATORS,
    *SERVER,
)
