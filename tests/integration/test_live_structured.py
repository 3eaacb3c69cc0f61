"""Structured output of the real, small model: every 200 is what was asked for, or was cut by `max_tokens`."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from benchmarks.schemas import fault_of
from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT, ask

pytestmark = pytest.mark.integration

CHATS = "/v1/chat/completions"
SCHEMAS = Path(__file__).parents[1] / "data" / "json_schemas"
HONOURED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMAS.glob("*.json"))}
REFUSED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMAS.glob("refused/*.json"))}


@pytest.fixture(autouse=True)
def _workers_stay(live_server: ServerProcess) -> Iterator[None]:
    before = live_server.worker_pids()
    yield
    assert live_server.worker_pids() == before


@pytest.fixture
def sdk(live_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="any", max_retries=0, timeout=120) as client:
        yield client


def of_schema(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}


def answer(http: httpx.Client, **fields: object) -> tuple[str, str]:
    """Text and finish_reason."""
    response = http.post(CHATS, json=ask("Make something up, in JSON.", CHAT, **fields), timeout=300)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    return choice["message"]["content"], choice["finish_reason"]


# ---- JSON schemas


def test_they_are_a_hundred() -> None:
    assert len(HONOURED) + len(REFUSED) == 100


def test_every_answer_is_valid_or_was_cut(http: httpx.Client) -> None:
    """Greedy ones and sampled ones; the model is so small that it rambles where it may."""

    def outcome(name: str) -> str:
        schema = HONOURED[name]
        sampling = {"temperature": len(name) % 2, "min_p": 0.1, "seed": 7, "max_tokens": 300}
        text, reason = answer(http, response_format=of_schema(schema), **sampling)
        if reason == "stop":
            assert not fault_of(text, schema)
        return reason

    with ThreadPoolExecutor(16) as pool:
        reasons = Counter(pool.map(outcome, HONOURED))

    assert set(reasons) <= {"stop", "length"}
    assert reasons["stop"] >= 0.6 * len(HONOURED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused(http: httpx.Client, name: str) -> None:
    response = http.post(CHATS, json=ask("hi", CHAT, response_format=of_schema(REFUSED[name])))

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format"


def test_a_json_object_is_one(http: httpx.Client) -> None:
    text, reason = answer(http, response_format={"type": "json_object"}, temperature=0, max_tokens=300)

    assert reason == "length" or isinstance(json.loads(text), dict)


def test_a_stream_says_the_same(http: httpx.Client) -> None:
    body = ask("Make something up, in JSON.", CHAT, response_format=of_schema(HONOURED["02_yes_or_no"]), temperature=0)
    lines = http.post(CHATS, json={**body, "stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)

    assert not fault_of(text, HONOURED["02_yes_or_no"])


def test_max_tokens_ends_with_length(http: httpx.Client) -> None:
    text, reason = answer(http, response_format=of_schema(HONOURED["40_sixty_properties"]), max_tokens=20)

    assert reason == "length"
    assert text.startswith("{")


# ---- the official SDK


class Mood(Enum):
    good = "good"
    bad = "bad"


class Step(BaseModel):
    explanation: str = Field(max_length=60)
    done: bool


class Report(BaseModel):
    """What a client would write."""

    title: str = Field(max_length=40)
    mood: Mood
    stars: int = Field(ge=1, le=5)
    kind: Literal["short", "long"]
    steps: list[Step] = Field(min_length=1, max_length=3)
    note: str | None = Field(max_length=30)


def test_the_sdk_parses_answers_into_pydantic_models(sdk: openai.OpenAI) -> None:
    parsed = sdk.chat.completions.parse(
        model=CHAT,
        messages=[{"role": "user", "content": "Report on your day."}],
        response_format=Report,
        temperature=0.7,
        seed=1,
    )

    assert isinstance(parsed.choices[0].message.parsed, Report)


def test_the_sdk_parses_streams_into_pydantic_models(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=CHAT, messages=[{"role": "user", "content": "Report on your day."}], response_format=Report, seed=2
    ) as stream:
        for _event in stream:
            pass
        parsed = stream.get_final_completion().choices[0].message.parsed

    assert isinstance(parsed, Report)


def test_the_sdk_raises_what_is_refused(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as refused:
        sdk.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": "hi"}],
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": REFUSED["unique_items"]}},
        )

    assert refused.value.param == "response_format"


# ---- other grammars


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ({"type": "regex", "definition": "(yes|no), because [a-z ]{5,40}\\."}, r"(yes|no), because [a-z ]{5,40}\."),
        ('start: word (" " word)* "!"\nword: /[a-z]{1,9}/', r"[a-z]{1,9}( [a-z]{1,9})*!"),
        ('root ::= item+ "."\nitem ::= "- " [^\\n]{1,30} "\\n"', r"(- [^\n]{1,30}\n)+\."),
    ],
)
def test_a_text_follows_its_grammar(http: httpx.Client, grammar: object, pattern: str) -> None:
    text, reason = answer(http, grammar=grammar, temperature=0.8, seed=3, max_tokens=200)

    assert reason == "length" or re.fullmatch(pattern, text)


# ---- hostile ones


HOSTILE: dict[str, dict[str, Any]] = {
    "type 123": {"response_format": of_schema({"type": 123})},
    "pattern 5": {"response_format": of_schema({"type": "string", "pattern": 5})},
    "circle": {"response_format": of_schema({"$ref": "#"})},
    "remote": {"response_format": of_schema({"$ref": "http://127.0.0.1:1/x.json"})},
    "file": {"response_format": of_schema({"$ref": "file:///etc/passwd"})},
    "enum of 100,000": {"response_format": of_schema({"enum": [f"value {n}" for n in range(100_000)]})},
    "12,000 properties": {"response_format": of_schema({"properties": {f"{n:x}": {} for n in range(12_000)}})},
    "patterns": {"response_format": of_schema({"patternProperties": {f"^{n:x}-": {} for n in range(3_000)}})},
    "60,000 brackets": {"grammar": {"type": "gbnf", "definition": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000}},
    "brackets in Lark": {"grammar": "start: " + "(" * 30_000 + '"a"' + ")" * 30_000},
    "intersections": {"grammar": "start: A\nA: " + " & ".join(f"/.*{n}.*/" for n in range(300))},
    "options": {"grammar": '%llguidance {"no_such_thing": 1}\nstart: A'},
    "a control token": {"grammar": "start: <|im_end|>"},
    "left recursion": {"grammar": "start: start"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_is_refused_soon_while_others_are_served(http: httpx.Client, name: str) -> None:
    """Within what it may take twice, tried out and then in earnest, and what the machine is busy with."""
    with ThreadPoolExecutor(1) as pool:
        started_s = time.monotonic()
        attack = pool.submit(http.post, CHATS, json=ask("hi", CHAT, **HOSTILE[name], max_tokens=8), timeout=60)
        neighbour = http.post(CHATS, json=ask("hi", CHAT, max_tokens=8))
        neighbour_s = time.monotonic() - started_s
        response = attack.result()
        attack_s = time.monotonic() - started_s

    assert neighbour.status_code == 200
    assert neighbour_s < 3
    assert response.status_code in (400, 503), response.text
    assert "<backtrace>" not in response.text and "/root" not in response.text
    assert attack_s < 8


def test_references_may_be_as_deep_as_they_like(http: httpx.Client) -> None:
    """A third as deep they would be too much for the stack of a common thread."""
    defs = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(3_000)}
    schema = {"$defs": {**defs, "d3000": {}}, "$ref": "#/$defs/d0", "type": "boolean"}

    assert answer(http, response_format=of_schema(schema), max_tokens=8)[0] in ("true", "false")


def test_many_different_grammars_do_not_pile_up(live_server: ServerProcess, http: httpx.Client) -> None:
    """Those that are kept are bounded; the others are given back."""
    import psutil

    worker = psutil.Process(live_server.worker_pids()[CHAT])

    def ask_many(first: int) -> int:
        for n in range(first, first + 150):
            schema = {"type": "object", "properties": {f"p{n}_{k}": {"type": "integer"} for k in range(20)}}
            http.post(CHATS, json=ask("hi", CHAT, response_format=of_schema(schema), max_tokens=1))
        return int(worker.memory_info().rss)

    ask_many(0)
    settled = ask_many(1000)

    assert ask_many(2000) - settled < 8 << 20
