"""Embeddings: texts in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence

from server.config.schema import Limits
from server.errors import InvalidRequest, RequestTooLarge
from server.models.registry import ModelRegistry
from server.protocols import EmbeddingResult


class EmbeddingService:
    """Finds the model, keeps the limits, embeds."""

    def __init__(self, registry: ModelRegistry, limits: Limits) -> None:
        self._registry = registry
        self._max_inputs = limits.max_inputs

    async def embed(
        self, model: str, texts: Sequence[str], *, dimensions: int | None = None, truncate: bool = False
    ) -> tuple[str, EmbeddingResult]:
        """Embed non-empty texts, keeping their order.

        Args:
            model: Id or alias.
            texts: Non-empty strings.
            dimensions: Refused unless it is what the model yields anyway.
            truncate: Cut texts that are too long instead of refusing them.

        Returns:
            The configured id of the model, and the vectors.

        Raises:
            ModelNotFound: No model of that name.
            RequestTooLarge: More texts than `limits.max_inputs`.
            InvalidRequest: The model does not embed, or not into `dimensions`.
            ContextLengthExceeded: A text is too long and `truncate` is false.
        """
        config, embedder = self._registry.embedding(model)
        if len(texts) > self._max_inputs:
            raise RequestTooLarge(
                f"input has {len(texts)} texts but at most {self._max_inputs} are accepted; send several requests",
                param="input",
            )
        if embedder.facts is not None:
            _check_dimensions(config.id, dimensions, embedder.facts.dimensions)
        result = await embedder.embed(texts, truncate=truncate)
        # Before its first load a lazy model could not say; a wrong length must not slip through then.
        _check_dimensions(config.id, dimensions, result.vectors.shape[1])
        return config.id, result


def _check_dimensions(model_id: str, requested: int | None, actual: int) -> None:
    if requested is not None and requested != actual:
        raise InvalidRequest(
            f"dimensions is {requested} but model {model_id!r} yields {actual}; leave it out or send {actual}",
            param="dimensions",
            code="unsupported_parameter",
        )
