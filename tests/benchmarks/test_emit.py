from __future__ import annotations

import base64
import json

import numpy as np

from benchmarks.emit import FORMATS, LIMITS_MS, emit, measure


async def test_what_is_timed_is_a_whole_answer() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)

    numbers, packed = [json.loads(await emit(vectors, name)) for name in ("float", "base64")]

    assert [item["embedding"] for item in numbers["data"]] == vectors.tolist()
    assert base64.b64decode(packed["data"][1]["embedding"]) == vectors[1].tobytes()
    assert numbers.keys() == {"object", "data", "model", "usage"}


async def test_every_repetition_but_the_first_counts() -> None:
    assert FORMATS.keys() == LIMITS_MS.keys()
    assert len((await measure("base64", 2))["ms"]["values"]) == 2
