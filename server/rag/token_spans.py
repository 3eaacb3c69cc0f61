"""Where the tokens of a document stand in its text, by the embedding model's own tokenizer where it can tell."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from server.errors import InvalidRequest
from server.protocols import EmbeddingModel

TokenSpans = npt.NDArray[np.int32]
"""int32 [num_tokens, 2]: start and end of each token in the text, in order. Parts of one character may share theirs."""

MAX_PIECE_CHARS = 4096
"""Below what a model of 64 tokens is asked to tokenise."""

_MAX_CHARS_PER_CALL = 1 << 14
"""The answer has an object for each token, which the event loop must decode at once: 4,000 take milliseconds."""

_BEFORE_WORD = re.compile(r".*\S(?= \S)", re.DOTALL)
_BEFORE_SPACE = re.compile(r".*\S(?=\s)", re.DOTALL)
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


def pieces(text: str) -> list[tuple[int, int]]:
    """Cut all of a text into pieces of at most `MAX_PIECE_CHARS`, whose tokens are together those of the text.

    That holds for cuts before a single space, as tokenizers begin a word there or with its first letter. Where a piece
    has none, it ends before other white space, or anywhere, and a token or two there may differ.
    """
    cuts = [0]
    while len(text) - cuts[-1] > MAX_PIECE_CHARS:
        limit = cuts[-1] + MAX_PIECE_CHARS
        # The two characters behind the limit are for what follows on a piece of full length.
        before = _BEFORE_WORD.match(text, cuts[-1], limit + 2) or _BEFORE_SPACE.match(text, cuts[-1], limit + 1)
        cuts.append(before.end() if before else limit)
    return list(zip(cuts, [*cuts[1:], len(text)], strict=True)) if text else []


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
