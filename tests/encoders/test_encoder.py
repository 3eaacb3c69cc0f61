from server.encoders.encoder import EncodedItem, pad

SHORT, LONG = EncodedItem([5], [0]), EncodedItem([6, 7, 8], [0, 1, 1])


def test_padding_fills_the_end_and_is_masked() -> None:
    features = pad([SHORT, LONG], pad_id=9)

    assert features["input_ids"].tolist() == [[5, 9, 9], [6, 7, 8]]
    assert features["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert features["token_type_ids"].tolist() == [[0, 0, 0], [0, 1, 1]]


def test_left_padding_fills_the_beginning() -> None:
    features = pad([SHORT, LONG], pad_id=9, side="left")

    assert features["input_ids"].tolist() == [[9, 9, 5], [6, 7, 8]]
    assert features["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]
