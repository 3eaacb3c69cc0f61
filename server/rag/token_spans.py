"""Where the tokens of a document stand in its text, by the embedding model's own tokenizer where it can tell."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from server.errors import InvalidRequest
from server.protocols import EmbeddingModel
from server.rag.chunker import pieces

TokenSpans = npt.NDArray[np.int32]
"""int32 [num_tokens, 2]: start and end of each token in the text, in order. Parts of one character may share theirs."""

_MAX_CHARS_PER_CALL = 1 << 14
"""The answer has an object for each token, which the event loop must decode at once: 4,000 take milliseconds."""

_ESTIMATE = re.compile(r"[A-Za-z0-9]{1,4}|\w{1,2}|\S")


async def token_spans(text: str, model: EmbeddingModel) -> TokenSpans:
    """Find the tokens of a text, special tokens left out. A model that cannot tell gets an estimate.

    Raises:
        ModelUnavailable: As `EmbeddingModel.tokenize`.
    """
    found: list[TokenSpans] = []
    for batch in _batches(await asyncio.to_thread(pieces, text)):
        try:
            answers = await model.tokenize([text[start:end] for start, end in batch], add_special_tokens=False)
        except InvalidRequest as exc:
            if exc.code != "unsupported_value":
                raise
            return await asyncio.to_thread(estimated_spans, text)
        for (offset, _), tokens in zip(batch, answers, strict=True):
            spans = [(token.start, token.stop) for token in tokens]
            found.append(np.array(spans, np.int32).reshape(-1, 2) + np.int32(offset))
    return np.concatenate(found) if found else np.empty((0, 2), np.int32)


def estimated_spans(text: str) -> TokenSpans:
    """Take four Latin letters or digits, two letters of another script, or one sign for a token."""
    return np.array([match.span() for match in _ESTIMATE.finditer(text)], np.int32).reshape(-1, 2)


def _batches(spans: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Group pieces so that each group is one call; a piece alone may be longer than the bound."""
    batch: list[tuple[int, int]] = []
    num_chars = 0
    for start, end in spans:
        if batch and num_chars + end - start > _MAX_CHARS_PER_CALL:
            yield batch
            batch, num_chars = [], 0
        batch.append((start, end))
        num_chars += end - start
    if batch:
        yield batch
