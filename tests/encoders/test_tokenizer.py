import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from server.encoders.tokenizer import (
    MAX_CHARS_PER_TOKEN,
    USUAL_CHARS_PER_TOKEN,
    PairTokenizer,
    TextTokenizer,
    choose_max_tokens,
)
from server.errors import ContextLengthExceeded, LoadFailed

CLS, SEP, WORD = 1, 2, 3
MAX_TOKENS = 8


def word_tokenizer() -> Tokenizer:
    """`[CLS] words [SEP]`, `[CLS] query [SEP] document [SEP]`; with limits, as tokenizer.json files have them."""
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "[CLS]": CLS, "[SEP]": SEP, "word": WORD}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return tokenizer


def words(count: int) -> str:
    return " ".join(["word"] * count)


@pytest.fixture
def texts() -> TextTokenizer:
    return TextTokenizer(word_tokenizer(), model_id="m", max_tokens=MAX_TOKENS)


@pytest.fixture
def pairs() -> PairTokenizer:
    return PairTokenizer(word_tokenizer(), model_id="m", max_tokens=MAX_TOKENS)


@pytest.mark.parametrize("truncate", [False, True])
def test_a_text_that_just_fits_is_kept_whole(texts: TextTokenizer, truncate: bool) -> None:
    [item] = texts.encode([words(6)], truncate=truncate)

    assert item.token_ids == [CLS, *[WORD] * 6, SEP]
    assert not item.is_truncated


def test_too_long_a_text_is_named_with_both_counts(texts: TextTokenizer) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        texts.encode(["word", words(7)], truncate=False)

    assert caught.value.message == "input[1] has 9 tokens but model 'm' accepts 8 tokens; shorten it or set truncate"
    assert caught.value.param == "input"


def test_truncation_keeps_the_special_tokens(texts: TextTokenizer) -> None:
    [item] = texts.encode([words(1000)], truncate=True)

    assert item.token_ids == [CLS, *[WORD] * 6, SEP]
    assert item.is_truncated


def test_words_after_a_long_gap_are_not_lost(texts: TextTokenizer) -> None:
    """Long texts are clipped by characters before they are tokenised; that must not cut off what would have fitted."""
    gap = " " * (USUAL_CHARS_PER_TOKEN * MAX_TOKENS)

    [item] = texts.encode([f"word{gap}word"], truncate=True)

    assert item.token_ids == [CLS, WORD, WORD, SEP]
    assert not item.is_truncated


@pytest.mark.parametrize("truncate", [False, True])
def test_a_text_that_cannot_fit_is_not_tokenised(texts: TextTokenizer, truncate: bool) -> None:
    """Tokenising takes hundreds of bytes for each character: gigabytes for what a body may hold."""
    text = "word" + " " * MAX_CHARS_PER_TOKEN * MAX_TOKENS

    if truncate:
        [item] = texts.encode([text + "word"], truncate=True)
        assert (item.token_ids, item.is_truncated) == ([CLS, WORD, SEP], True)
    else:
        with pytest.raises(
            ContextLengthExceeded, match=r"input\[0\] has 516 characters but model 'm' accepts 8 tokens"
        ):
            texts.encode([text], truncate=False)


def test_pairs_have_segments(pairs: PairTokenizer) -> None:
    [item] = pairs.encode([("word", "word word")], truncate=False)

    assert item.token_ids == [CLS, WORD, SEP, WORD, WORD, SEP]
    assert item.type_ids == [0, 0, 0, 1, 1, 1]


def test_too_long_a_document_is_named_with_both_counts(pairs: PairTokenizer) -> None:
    with pytest.raises(
        ContextLengthExceeded, match=r"documents\[1\] and the query have 9 tokens .* accepts 8"
    ) as caught:
        pairs.encode([("word", "word"), ("word", words(5))], truncate=False)

    assert caught.value.param == "documents"


def test_only_the_document_is_cut(pairs: PairTokenizer) -> None:
    [item] = pairs.encode([("word word", words(1000))], truncate=True)

    assert item.type_ids == [0, 0, 0, 0, 1, 1, 1, 1]
    assert item.is_truncated


def test_a_document_that_cannot_fit_is_not_tokenised(pairs: PairTokenizer) -> None:
    document = " " * MAX_CHARS_PER_TOKEN * MAX_TOKENS + "word"

    with pytest.raises(ContextLengthExceeded, match=r"documents\[0\] and the query have 520 characters"):
        pairs.encode([("word", document)], truncate=False)
    [item] = pairs.encode([("word", document)], truncate=True)

    assert (item.token_ids, item.is_truncated) == ([CLS, WORD, SEP, SEP], True)


@pytest.mark.parametrize("truncate", [False, True])
def test_a_query_that_cannot_fit_is_not_tokenised(pairs: PairTokenizer, truncate: bool) -> None:
    query = " " * MAX_CHARS_PER_TOKEN * MAX_TOKENS

    with pytest.raises(ContextLengthExceeded, match="the query has 512 characters but model 'm' accepts 4 tokens"):
        pairs.encode([(query, "word")], truncate=truncate)


@pytest.mark.parametrize("truncate", [False, True])
def test_a_query_that_leaves_no_room_is_refused(pairs: PairTokenizer, truncate: bool) -> None:
    with pytest.raises(ContextLengthExceeded, match="the query has 5 tokens but model 'm' accepts 4") as caught:
        pairs.encode([(words(5), "word")], truncate=truncate)

    assert caught.value.param == "query"


def test_configured_context_wins_up_to_the_positions() -> None:
    assert choose_max_tokens(None, own=256, possible=512) == 256
    assert choose_max_tokens(512, own=256, possible=512) == 512
    with pytest.raises(LoadFailed, match="context is 513 but the model has 512 positions"):
        choose_max_tokens(513, own=256, possible=512)
    with pytest.raises(LoadFailed, match="set context"):
        choose_max_tokens(None, own=None, possible=None)
