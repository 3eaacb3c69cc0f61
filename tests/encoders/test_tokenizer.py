import tracemalloc

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from server.encoders.encoder import EncodedItem, Pairs, Texts
from server.encoders.tokenizer import (
    MAX_CHARS_PER_TOKEN,
    MAX_WINDOWS,
    USUAL_CHARS_PER_TOKEN,
    PairTokenizer,
    TextTokenizer,
    choose_max_tokens,
    num_positions,
)
from server.encoders.vocabulary import FastPairVocabulary, FastTextVocabulary
from server.errors import ContextLengthExceeded, InvalidRequest, LoadFailed, RequestTooLarge
from server.types import Token, TokenIds, Truncate

CLS, SEP, WORD = 1, 2, 3
A, B, C, D, E, F, G, H = range(4, 12)
MAX_TOKENS = 8


def word_tokenizer() -> Tokenizer:
    """`[CLS] words [SEP]`, `[CLS] query [SEP] document [SEP]`; with limits, as tokenizer.json files have them."""
    names = ["[UNK]", "[CLS]", "[SEP]", "word", *"abcdefgh"]
    tokenizer = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return tokenizer


def words(count: int) -> str:
    return " ".join(["word"] * count)


def ids_of(items: list[EncodedItem]) -> list[TokenIds]:
    return [list(item.token_ids) for item in items]


@pytest.fixture
def texts() -> TextTokenizer:
    return TextTokenizer(FastTextVocabulary(word_tokenizer()), model_id="m", max_tokens=MAX_TOKENS)


@pytest.fixture
def pairs() -> PairTokenizer:
    return PairTokenizer(FastPairVocabulary(word_tokenizer()), model_id="m", max_tokens=MAX_TOKENS)


# ---- texts


@pytest.mark.parametrize("truncate", ["error", "end", "start", "mean"])
def test_a_text_that_just_fits_is_kept_whole(texts: TextTokenizer, truncate: Truncate) -> None:
    [item] = texts.encode(Texts([words(6)], truncate))

    assert [*item.token_ids] == [CLS, *[WORD] * 6, SEP]
    assert not item.is_truncated and not item.is_continuation


def test_too_long_a_text_is_named_with_both_counts(texts: TextTokenizer) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        texts.encode(Texts(["word", words(7)]))

    assert caught.value.message == "input[1] has 9 tokens but model 'm' accepts 8 tokens; shorten it or set truncate"
    assert caught.value.param == "input"


@pytest.mark.parametrize(("truncate", "kept"), [("end", [A, B, C, D, E, F]), ("start", [C, D, E, F, G, H])])
def test_truncation_cuts_its_side_and_keeps_the_special_tokens(
    texts: TextTokenizer, truncate: Truncate, kept: TokenIds
) -> None:
    [item] = texts.encode(Texts(["a b c d e f g h"], truncate))

    assert [*item.token_ids] == [CLS, *kept, SEP]
    assert item.is_truncated


@pytest.mark.parametrize("truncate", ["end", "start"])
def test_words_after_a_long_gap_are_not_lost(texts: TextTokenizer, truncate: Truncate) -> None:
    """Long texts are clipped by characters before they are tokenised; that must not cut off what would have fitted."""
    gap = " " * (USUAL_CHARS_PER_TOKEN * MAX_TOKENS)

    [item] = texts.encode(Texts([f"a{gap}b"], truncate))

    assert [*item.token_ids] == [CLS, A, B, SEP]
    assert not item.is_truncated


@pytest.mark.parametrize(("truncate", "kept"), [("end", A), ("start", B)])
def test_of_a_text_that_cannot_fit_a_part_is_tokenised(texts: TextTokenizer, truncate: Truncate, kept: int) -> None:
    """Tokenising takes hundreds of bytes for each character: gigabytes for what a body may hold."""
    [item] = texts.encode(Texts(["a" + " " * MAX_CHARS_PER_TOKEN * MAX_TOKENS + "b"], truncate))

    assert ([*item.token_ids], item.is_truncated) == ([CLS, kept, SEP], True)


def test_a_text_that_cannot_fit_is_refused_by_its_characters(texts: TextTokenizer) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"input\[0\] has 516 characters but model 'm' accepts 8 tokens"):
        texts.encode(Texts(["word" + " " * MAX_CHARS_PER_TOKEN * MAX_TOKENS]))


def test_windows_are_of_like_length_and_lose_nothing(texts: TextTokenizer) -> None:
    items = texts.encode(Texts(["a", "a b c d e f g h", "b"], "mean"))

    assert ids_of(items) == [[CLS, A, SEP], [CLS, A, B, C, D, SEP], [CLS, E, F, G, H, SEP], [CLS, B, SEP]]
    assert [item.is_continuation for item in items] == [False, False, True, False]
    assert not any(item.is_truncated for item in items)


def test_a_request_takes_so_many_windows_and_no_more(texts: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their rows are kept until the last is there, and each is a forward pass's work."""
    monkeypatch.setattr("server.encoders.tokenizer.MAX_FURTHER_WINDOWS", 3)

    assert len(texts.encode(Texts([words(12)] * 3 + ["a"] * 9, "mean"))) == 15
    with pytest.raises(RequestTooLarge, match="input has 5 texts, of which the first 4 take more than 3 windows"):
        texts.encode(Texts([words(12)] * 5, "mean"))


def test_items_take_hardly_more_memory_than_the_text_they_come_from() -> None:
    """A request may have 2,048 inputs in 32 MB of text, and wait for minutes; here, as many in a sixteenth of that."""
    tokenizer = TextTokenizer(FastTextVocabulary(word_tokenizer()), model_id="m", max_tokens=256)
    inputs = [words(200)] * 1024 + [words(2)] * 1000 + [words(8000)] * 24
    num_bytes = sum(map(len, inputs))

    tracemalloc.start()
    items = tokenizer.encode(Texts(inputs, "mean"))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sum(item.num_tokens - 2 for item in items) == 200 * 1024 + 2 * 1000 + 8000 * 24
    assert kept < 1.5 * num_bytes
    assert peak < 2 * num_bytes


def test_a_text_longer_than_a_slice_loses_nothing_in_windows(texts: TextTokenizer) -> None:
    """Long texts are tokenised a part at a time; no word is torn where parts meet."""
    items = texts.encode(Texts([words(1000)], "mean"))

    assert [token_id for item in items for token_id in item.token_ids[1:-1]] == [WORD] * 1000


def test_windows_are_bounded(texts: TextTokenizer) -> None:
    accepted = MAX_WINDOWS * 6

    assert len(texts.encode(Texts([words(accepted)], "mean"))) == MAX_WINDOWS
    with pytest.raises(ContextLengthExceeded, match=f"has 1537 tokens but model 'm' accepts {accepted} tokens"):
        texts.encode(Texts([words(accepted + 1)], "mean"))
    with pytest.raises(ContextLengthExceeded, match=r"has more than \d+ tokens"):
        texts.encode(Texts([words(5 * accepted)], "mean"))


@pytest.mark.parametrize(
    ("truncate", "expected"),
    [
        ("end", [[A, B, C, D, E, F]]),
        ("start", [[A, B, E, F, G, H]]),
        ("mean", [[A, B, C, D, E], [A, B, F, G, H]]),
    ],
)
def test_the_prompt_goes_before_every_window_and_is_never_cut(
    texts: TextTokenizer, truncate: Truncate, expected: list[TokenIds]
) -> None:
    items = texts.encode(Texts(["c d e f g h"], truncate, prompt="a b "))

    assert ids_of(items) == [[CLS, *kept, SEP] for kept in expected]


def test_a_prompt_that_leaves_no_room_is_refused(texts: TextTokenizer) -> None:
    with pytest.raises(ContextLengthExceeded, match="the prompt has 6 tokens, which leaves none for a text"):
        texts.encode(Texts(["a"], "end", prompt=words(6)))


class BorderVocabulary(FastTextVocabulary):
    """Makes "ab" one token, and two before a "c", as merges of byte pairs do."""

    def __init__(self) -> None:
        names = ["[CLS]", "[SEP]", "a", "b", "c", "ab", "bc"]
        vocabulary = {name: index for index, name in enumerate(names)}
        tokenizer = Tokenizer(BPE(vocabulary, [("b", "c"), ("a", "b")]))
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
        )
        super().__init__(tokenizer)


@pytest.mark.parametrize("truncate", ["end", "start", "mean"])
def test_a_prompt_that_grows_until_it_leaves_no_room_is_refused(truncate: Truncate) -> None:
    tokenizer = TextTokenizer(BorderVocabulary(), model_id="m", max_tokens=4)

    assert ids_of(tokenizer.encode(Texts(["c"], truncate, prompt="ab"))) == [[0, 2, 6, 1]]
    with pytest.raises(ContextLengthExceeded, match="the prompt has 2 tokens, which leaves none for a text"):
        tokenizer.encode(Texts(["cab"], truncate, prompt="ab"))


@pytest.mark.parametrize(
    ("prompt", "expected"), [(None, [CLS, A, B, C, SEP]), ("", [CLS, C, SEP]), ("d ", [CLS, D, C, SEP])]
)
def test_the_default_prompt_is_for_those_who_choose_none(prompt: str | None, expected: TokenIds) -> None:
    vocabulary = FastTextVocabulary(word_tokenizer())
    tokenizer = TextTokenizer(vocabulary, model_id="m", max_tokens=MAX_TOKENS, default_prompt="a b ")

    assert ids_of(tokenizer.encode(Texts(["c", [C]], prompt=prompt))) == [expected, expected]


def test_tokens_say_where_they_stand(texts: TextTokenizer) -> None:
    [bare, framed] = (texts.spell(["b  a"], add_special_tokens=wanted)[0] for wanted in (False, True))

    assert bare == [Token(B, "b", 0, 1), Token(A, "a", 3, 4)]
    assert framed == [Token(CLS, "[CLS]"), *bare, Token(SEP, "[SEP]")]


# ---- token ids


def test_token_ids_are_framed_like_text(texts: TextTokenizer) -> None:
    by_ids = texts.encode(Texts([[A, B], [C]], prompt="a b "))

    assert by_ids == texts.encode(Texts(["a b", "c"], prompt="a b "))


def test_special_tokens_that_are_there_already_are_not_doubled(texts: TextTokenizer) -> None:
    assert ids_of(texts.encode(Texts([[CLS, A, SEP], [SEP]]))) == [[CLS, A, SEP], [CLS, SEP, SEP]]


@pytest.mark.parametrize("wrong", [-1, 12, 100_000])
def test_a_token_id_outside_the_vocabulary_is_named(texts: TextTokenizer, wrong: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"input\[1\]\[2\] is {wrong} but .* of model 'm' go from 0 to 11"):
        texts.encode(Texts([[A], [A, B, wrong]]))


@pytest.mark.parametrize(("truncate", "kept"), [("end", A), ("start", B)])
def test_too_many_token_ids_are_cut(texts: TextTokenizer, truncate: Truncate, kept: int) -> None:
    [item] = texts.encode(Texts([[A] * 10 + [B] * 10], truncate))

    assert ([*item.token_ids], item.is_truncated) == ([CLS, *[kept] * 6, SEP], True)


def test_too_many_token_ids_are_refused(texts: TextTokenizer) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"input\[0\] has 9 tokens"):
        texts.encode(Texts([[A] * 7]))


# ---- pairs


def test_pairs_have_segments(pairs: PairTokenizer) -> None:
    [item] = pairs.encode(Pairs("word", ["word word"]))

    assert [*item.token_ids] == [CLS, WORD, SEP, WORD, WORD, SEP]
    assert [*item.type_ids] == [0, 0, 0, 1, 1, 1]


def test_too_long_a_document_is_named_with_both_counts(pairs: PairTokenizer) -> None:
    with pytest.raises(
        ContextLengthExceeded, match=r"documents\[1\] and the query have 9 tokens .* accepts 8"
    ) as caught:
        pairs.encode(Pairs("word", ["word", words(5)]))

    assert caught.value.param == "documents[1]"


def test_a_document_is_named_by_its_place_among_all(pairs: PairTokenizer) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"^documents\[2\] and the query") as caught:
        pairs.encode(Pairs("word", ["a", "a", words(5)]))

    assert caught.value.param == "documents[2]"


def test_only_the_document_is_cut(pairs: PairTokenizer) -> None:
    [item] = pairs.encode(Pairs("word word", [words(1000)], "end"))

    assert [*item.type_ids] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert item.is_truncated


@pytest.mark.parametrize("truncate", ["error", "end"])
def test_documents_are_cut_to_their_own_limit(pairs: PairTokenizer, truncate: Truncate) -> None:
    items = pairs.encode(Pairs("a", ["b", "b c d e f g"], truncate, max_tokens_per_doc=2))

    assert ids_of(items) == [[CLS, A, SEP, B, SEP], [CLS, A, SEP, B, C, SEP]]
    assert [item.is_truncated for item in items] == [False, True]


def test_a_limit_above_the_models_does_not_lift_that(pairs: PairTokenizer) -> None:
    wanted = Pairs("word", [words(7)], max_tokens_per_doc=100)

    with pytest.raises(ContextLengthExceeded, match=r"documents\[0\] and the query have 11 tokens"):
        pairs.encode(wanted)
    [item] = pairs.encode(Pairs("word", [words(7)], "end", max_tokens_per_doc=100))

    assert item.num_tokens == MAX_TOKENS


def test_a_document_that_cannot_fit_is_not_tokenised(pairs: PairTokenizer) -> None:
    document = " " * MAX_CHARS_PER_TOKEN * MAX_TOKENS + "word"

    with pytest.raises(ContextLengthExceeded, match=r"documents\[0\] and the query have 520 characters"):
        pairs.encode(Pairs("word", [document]))
    [item] = pairs.encode(Pairs("word", [document], "end"))

    assert ([*item.token_ids], item.is_truncated) == ([CLS, WORD, SEP, SEP], True)


@pytest.mark.parametrize("truncate", ["error", "end"])
def test_a_query_that_cannot_fit_is_not_tokenised(pairs: PairTokenizer, truncate: Truncate) -> None:
    query = " " * MAX_CHARS_PER_TOKEN * MAX_TOKENS

    with pytest.raises(ContextLengthExceeded, match="the query has 512 characters but model 'm' accepts 4 tokens"):
        pairs.encode(Pairs(query, ["word"], truncate))


@pytest.mark.parametrize("truncate", ["error", "end"])
def test_a_query_that_leaves_no_room_is_refused(pairs: PairTokenizer, truncate: Truncate) -> None:
    with pytest.raises(ContextLengthExceeded, match="the query has 5 tokens but model 'm' accepts 4") as caught:
        pairs.encode(Pairs(words(5), ["word"], truncate))

    assert caught.value.param == "query"


@pytest.mark.parametrize(
    ("hf_config", "positions"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 8194}, 8192),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": None}, 512),
        ({"model_type": "t5"}, None),
    ],
)
def test_positions_that_no_text_has_do_not_count(hf_config: dict[str, object], positions: int | None) -> None:
    """RoBERTa and its kin begin to count behind the padding token's id."""
    assert num_positions(hf_config) == positions


def test_configured_context_wins_up_to_the_positions() -> None:
    assert choose_max_tokens(None, own=256, possible=512) == 256
    assert choose_max_tokens(None, own=514, possible=512) == 512
    assert choose_max_tokens(512, own=256, possible=512) == 512
    with pytest.raises(LoadFailed, match="context is 513 but the model has 512 positions"):
        choose_max_tokens(513, own=256, possible=512)
    with pytest.raises(LoadFailed, match="set context"):
        choose_max_tokens(None, own=None, possible=None)
