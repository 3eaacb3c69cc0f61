from __future__ import annotations

from server.rag.known_items import HeadedText, known_items

GARDEN = [
    HeadedText("roses", "Garden > Care", "Roses want pruning, and pruning again; feed them in spring."),
    HeadedText("tulips", "Garden > Care", "Tulips want bulbs lifted; feed them in spring."),
    HeadedText("lawn", "Garden > Care", "Scarify lawns; feed them in spring."),
    HeadedText("pond", "Garden > Care", "Skim ponds weekly; feed fish in spring."),
]


def headed(*pairs: tuple[str, str]) -> list[HeadedText]:
    return [HeadedText(item, heading, "") for item, heading in pairs]


def test_a_heading_asks_for_what_stands_below_it() -> None:
    judgements = known_items(headed(("1", "Guide > Installing > On a small machine"), ("2", "Guide > Removing it now")))

    assert judgements.queries == {"1": "On a small machine", "2": "Removing it now"}
    assert judgements.gains == {"1": {"1": 1}, "2": {"2": 1}}


def test_a_short_heading_takes_the_ones_above_along() -> None:
    assert known_items(headed(("1", "The small guide > Installing > Linux"))).queries == {
        "1": "The small guide Installing Linux"
    }


def test_headings_that_could_mean_anything_ask_nothing() -> None:
    headings = headed(*((str(item), "Notes on this chapter") for item in range(4)), ("9", "Overview"), ("10", ""))

    assert known_items(headings).queries == {}


def test_where_headings_do_not_suffice_words_of_the_text_are_put_to_them() -> None:
    judgements = known_items(GARDEN)

    asked = dict(zip(judgements.queries.values(), judgements.gains.values(), strict=True))
    assert asked["Care roses pruning again"] == {"roses": 1}
    assert all("spring" not in question for question in asked), "which all of them have"
    assert len(asked) == 4


def test_a_text_without_heading_asks_by_its_words() -> None:
    texts = [HeadedText("a", "", "kneading dough slowly"), HeadedText("b", "", "sharpening knives safely")]

    assert set(known_items(texts).queries.values()) == {"kneading dough slowly", "sharpening knives safely"}


def test_questions_of_headings_come_before_those_of_words() -> None:
    texts = [*GARDEN, HeadedText("shed", "Garden > What the shed holds", "Rakes and spades, hoes and shears.")]

    assert list(known_items(texts, num_questions=1).queries.values()) == ["What the shed holds"]
    assert all("What the shed holds" in known_items(texts, num_questions=3, seed=n).queries.values() for n in range(9))
    assert len(known_items(texts, num_questions=9).queries) == 6


def test_the_same_seed_draws_the_same_questions() -> None:
    texts = headed(*((str(item), f"All about number {item}") for item in range(50)))

    drawn = [known_items(texts, num_questions=10, seed=seed).queries for seed in (1, 1, 2)]

    assert len(drawn[0]) == 10
    assert drawn[0] == drawn[1] != drawn[2]
