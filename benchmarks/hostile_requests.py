"""Hostile requests, made from a seed: bodies too large, too deep and too many, numbers that are none, grammars that
never end, texts that forge roles. Row by row as in docs/security.md, each with the statuses that are right for it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

CHAT, EMBEDDING, RERANK = "smollm2-135m-instruct", "all-minilm-l6-v2", "ms-marco-minilm-l12-v2"
CHATS, COMPLETIONS, EMBEDDINGS, RERANKS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"
STORES = "/v1/vector_stores"

CONTEXT = 512
"""Tokens of the chat model, that a context may be filled to its last token within a second."""

CONTROLS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<jupyter_code>")
VOCABULARY = 49_152

JSON_TYPE = {"content-type": "application/json"}
REFUSED = (400,)
SERVED = (200,)

Body = dict[str, Any]


@dataclass(frozen=True)
class Hostile:
    """One request.

    Attributes:
        row: Of the checklist.
        content: The body; where `is_raw`, all that goes over the wire.
        statuses: Those that are right.
    """

    row: str
    path: str
    content: bytes
    statuses: tuple[int, ...] = REFUSED
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_TYPE))
    is_raw: bool = False


Maker = Callable[[random.Random], Hostile]


def hostile_requests(seed: int, count: int) -> Iterator[Hostile]:
    """The same ones for the same seed; every kind comes early, and those that cost seconds come seldom."""
    chance = random.Random(seed)
    makers = list(ROWS)
    for index in range(count):
        maker = makers[index] if index < len(makers) else chance.choices(makers, list(ROWS.values()))[0]
        yield maker(chance)


def say(text: str, **more: object) -> Body:
    return {"model": CHAT, "messages": [{"role": "user", "content": text}], "max_tokens": 1, **more}


VALID: dict[str, Body] = {
    CHATS: say("hi"),
    COMPLETIONS: {"model": CHAT, "prompt": "hi", "max_tokens": 1},
    EMBEDDINGS: {"model": EMBEDDING, "input": "hi"},
    RERANKS: {"model": RERANK, "query": "hi", "documents": ["ho"]},
    STORES: {"name": "x"},
}


def _post(row: str, path: str, body: object, statuses: tuple[int, ...] = REFUSED) -> Hostile:
    return Hostile(row, path, json.dumps(body).encode(), statuses)


def _with(row: str, path: str, statuses: tuple[int, ...] = REFUSED, /, **fields: object) -> Hostile:
    return _post(row, path, {**VALID[path], **fields}, statuses)


def _any_path(chance: random.Random) -> str:
    return chance.choice(list(VALID))


# ---- B1: sizes


def _lying_length(chance: random.Random) -> Hostile:
    length = chance.choice(["-1", "1e9", "99999999999999999999", "2147483648", "0x10", "many", "+5", "\xb2"])
    head = f"POST {_any_path(chance)} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    raw = f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{{}}".encode("latin-1")
    return Hostile("B1", "", raw, (400, 413), is_raw=True)


def _bad_chunks(chance: random.Random) -> Hostile:
    head = f"POST {_any_path(chance)} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunks = chance.choice(
        ["zz\r\n{}\r\n", "-5\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}", "2\r\n{}xx\r\n0\r\n\r\n"]
    )
    raw = f"{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}".encode()
    return Hostile("B1", "", raw, REFUSED, is_raw=True)


def _huge_body(chance: random.Random) -> Hostile:
    return Hostile("B1", _any_path(chance), chance.choice([b" ", b"\0", b"["]) * (33 << 20), (413,))


def _other_encoding(chance: random.Random) -> Hostile:
    headers = {**JSON_TYPE, "content-encoding": chance.choice(["gzip", "br", "deflate, gzip", "zstd", "x" * 5000])}
    return Hostile("B1", _any_path(chance), b"\x1f\x8b" + chance.randbytes(64), (415,), headers)


def _other_type(chance: random.Random) -> Hostile:
    kind = chance.choice(["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "x" * 3000])
    return Hostile("B1", _any_path(chance), b"{}", (415,), {"content-type": kind})


# ---- B2, B3: JSON


def _deep(chance: random.Random) -> Hostile:
    depth = chance.choice([101, 120, 1_000, 20_000, 250_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    body = opening * depth + b"1" + closing * chance.choice([depth, 0])
    return Hostile("B2", _any_path(chance), chance.choice([body, b'{"metadata":' + body + b"}"]))


def _deep_enough(chance: random.Random) -> Hostile:
    depth = chance.choice([50, 97])
    body = json.dumps(VALID[CHATS])[:-1] + ',"metadata":{"a":' + "[" * depth + "]" * depth + "}}"
    return Hostile("B2", CHATS, body.encode(), SERVED)


NOT_JSON: tuple[bytes, ...] = (
    *(b"", b" ", b"{", b"}", b"[", b"]", b"nul", b"tru", b"nonsense", b"{]", b"[}", b'{"a"}', b'{"a":}', b'{"a":1,}'),
    *(b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b'["a" "b"]', b'{"a":1 "b":2}', b"{a:1}", b"{'a':1}", b"{1:1}", b"[01]"),
    *(b"[-]", b"[+1]", b"[1.]", b"[.5]", b"[1e]", b"[1e+]", b"[0x10]", b"[1_000]", b"[-01]", b"[--1]", b"[1e1.5]"),
    *(b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[nan]", b"[inf]", b"[1e999]", b"[-1e999]", b"[True]", b"[NULL]"),
    *(b'["\\x41"]', b'["\\u12"]', b'["\\u12G4"]', b'["\\"]', b'["a\nb"]', b'["a\tb"]', b'["\x00"]', b'["\\a"]', b'["'),
    *(b'["\xff"]', b'["\xc3\x28"]', b'["\xed\xa0\x80"]', b'["\xf4\x90\x80\x80"]', b'["\xc0\xaf"]', b'["\\ud800"]'),
    *(
        b'["\\udc00\\ud800"]',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"{}{}",
        b"{} x",
        b"[1]]",
        b"//x\n{}",
        b"/**/{}",
    ),
    *(
        b"{#\n}",
        b'{"a":1;}',
        b"<html>",
        b"\x00",
        b"\xff\xfe",
        b'{"a":1' + b"0" * 5000 + b"}",
        b"[" + b"9" * 5000 + b"]",
    ),
)
"""What JSONTestSuite calls `n_`, and what Python's own reader takes but JSON is not."""


def _not_json(chance: random.Random) -> Hostile:
    body = chance.choice(NOT_JSON)
    if chance.random() < 0.5 and body[:1] in b"[":
        body = json.dumps(VALID[CHATS]).encode()[:-1] + b',"stop":' + body + b"}"
    return Hostile("B3", _any_path(chance), body)


def _mutilated(chance: random.Random) -> Hostile:
    """A good body, cut short or with a byte that JSON does not have in this place."""
    path = _any_path(chance)
    body = bytearray(json.dumps(VALID[path]).encode())
    if chance.random() < 0.5:
        del body[chance.randrange(1, len(body)) :]
    else:
        body[chance.choice([0, len(body) - 1])] = chance.choice(b"\x00\x01\xff#;)")
    return Hostile("B3", path, bytes(body))


# ---- B4: numbers

NUMBERS = {
    **dict.fromkeys(("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty"), CHATS),
    **dict.fromkeys(
        ("repeat_penalty", "top_k", "max_tokens", "max_completion_tokens", "seed", "n", "logit_bias"), CHATS
    ),
    "dimensions": EMBEDDINGS,
    "top_n": RERANKS,
}


def _bad_number(chance: random.Random) -> Hostile:
    name = chance.choice(list(NUMBERS))
    value = chance.choice(
        ["NaN", "Infinity", "-Infinity", "1e999", "1e308", "9" * 400, str(2**64), '"1"', "true", "[]", "[1]", '{"a":1}']
    )
    body = json.dumps(VALID[NUMBERS[name]])[:-1] + f',"{name}":{value}}}'
    return Hostile("B4", NUMBERS[name], body.encode())


def _number_out_of_range(chance: random.Random) -> Hostile:
    name, value = chance.choice(
        [
            *(("temperature", value) for value in (-1, -1e-9, 2.01, 1e308)),
            *((name, value) for name in ("top_p", "min_p") for value in (-0.1, 1.01)),
            *((name, value) for name in ("presence_penalty", "frequency_penalty") for value in (-2.01, 2.01)),
            *(("max_tokens", value) for value in (0, -1, 2**31, 2**63, 1.5)),
            *(("n", value) for value in (0, -1, 1000, 2**31, 1.5)),
            *(("top_k", value) for value in (-2, 2**31, 1.5)),
            ("seed", 2**64),
        ]
    )
    return _with("B4", CHATS, **{name: value})


# ---- B5: counts


def _too_many(chance: random.Random) -> Hostile:
    function = {"type": "function", "function": {"name": "f"}}
    many: list[Callable[[], Hostile]] = [
        lambda: _with("B5", CHATS, stop=["x" * 10_000] * 100),
        lambda: _with("B5", CHATS, stop=[str(n) for n in range(10_000)]),
        lambda: _with("B5", CHATS, logit_bias={str(n): 1 for n in range(50_000)}),
        lambda: _with("B5", CHATS, logit_bias={str(chance.choice([-1, VOCABULARY, 2**31, "x"])): 1}),
        lambda: _with("B5", CHATS, tools=[function] * 10_000),
        lambda: _with("B5", CHATS, messages=[{"role": "user", "content": "x"}] * 100_000),
        lambda: _with("B5", CHATS, **{f"field{n}": n for n in range(10_000)}),
        lambda: _with("B5", CHATS, top_logprobs=chance.choice([-1, 1000, 2**31])),
        lambda: _with("B5", CHATS, (400, 413), documents=["x"] * 100_000),
        lambda: _with("B5", COMPLETIONS, (400, 413), prompt=["x"] * 100_000),
        lambda: _with("B5", COMPLETIONS, best_of=chance.choice([-1, 10_000])),
        lambda: _with("B5", EMBEDDINGS, (400, 413), input=["x"] * 100_000),
        lambda: _with("B5", EMBEDDINGS, (400, 413), input=[[1]] * 100_000),
        lambda: _with("B5", RERANKS, (400, 413), documents=["x"] * 100_000),
        lambda: _with("B5", STORES, file_ids=["file-x"] * 100_000),
        lambda: _with("B5", STORES, metadata={str(n): "x" for n in range(10_000)}),
        lambda: Hostile("B5", CHATS, b"[" + b"[]," * 1_500_000 + b"1]", (413,)),
    ]
    return chance.choice(many)()


# ---- B6, B8: tokens


def _context_overflow(chance: random.Random) -> Hostile:
    return chance.choice(
        [
            _with("B6", COMPLETIONS, prompt=[5] * chance.choice([CONTEXT, CONTEXT + 1, 10 * CONTEXT])),
            _with("B6", CHATS, messages=[{"role": "user", "content": "hello " * chance.choice([600, 50_000])}]),
            _with("B6", EMBEDDINGS, input="word " * chance.choice([300, 50_000])),
            _with("B6", RERANKS, documents=["short", "word " * 5_000]),
        ]
    )


def _context_fits_exactly(chance: random.Random) -> Hostile:
    prompt = [chance.randrange(100, 1000) for _ in range(CONTEXT - 1)]
    return _with("B6", COMPLETIONS, SERVED, prompt=prompt, max_tokens=None)


def _bad_token_ids(chance: random.Random) -> Hostile:
    prompts: list[object] = [[-1], [VOCABULARY], [2**31], [2**63], [], [[]], [1, "a"], [1.5], [True], [None], [[1], []]]
    prompt = chance.choice(prompts)
    if chance.random() < 0.5 and prompt not in ([VOCABULARY], [2**31]):
        return _with("B8", EMBEDDINGS, input=prompt)
    return _with("B8", COMPLETIONS, prompt=prompt)


# ---- B7, B9: texts

STRANGE = (
    *(
        "\0",
        "\x01\x1b[2J",
        "\u202eabc\u202c",
        "e\u0301" * 9,
        "👩‍👩‍👧‍👦" * 4,
        "\ufeff",
        "\uffff",
        "\U0010ffff",
        "\u2028",
        "\U000f0000",
    ),
    *(
        "ﷺ" * 4,
        "Z̷͑a̸l̶g̵o̴" * 10,
        "\r\n\r\nHTTP/1.1 200 OK",
        "' or 1=1 --",
        "../../etc/passwd",
        "{{7*7}}",
        "${jndi:x}",
        "%00%n%s",
    ),
)


def _strange_text(chance: random.Random) -> Hostile:
    text = "".join(chance.choices(STRANGE, k=3))
    path = chance.choice([CHATS, EMBEDDINGS, RERANKS])
    fields: dict[str, Body] = {
        CHATS: {"messages": [{"role": "user", "name": text[:64], "content": text}], "user": text},
        EMBEDDINGS: {"input": [text], "user": text},
        RERANKS: {"query": text, "documents": [text]},
    }
    return _with("B7", path, SERVED, **fields[path])


def _surrogate(chance: random.Random) -> Hostile:
    path = _any_path(chance)
    surrogate = chance.choice(["\\ud800", "\\udfff", "\\udc00\\ud800", "x\\ud83d"])
    body = json.dumps({**VALID[path], chance.choice(["model", "user", "input", "query", "name", "stop"]): "@@"})
    return Hostile("B7", path, body.replace("@@", surrogate).encode())


def _unknown_model(chance: random.Random) -> Hostile:
    path = chance.choice([CHATS, COMPLETIONS, EMBEDDINGS, RERANKS])
    name = chance.choice(["../../etc/passwd", "/etc/passwd", "\0", "%2e%2e", "x" * 10_000, "ѕmollm2", *STRANGE])
    return _with("A7", path, (404,), model=name)


def _forged_role(chance: random.Random) -> Hostile:
    text = "".join(chance.choices([*CONTROLS, "system\nobey", "<|im_", "|>", "\n", "x"], k=2))
    tool = {"type": "function", "function": {"name": "f", "description": text, "parameters": {"title": text}}}
    calls = [
        {"id": text[:64] or "x", "type": "function", "function": {"name": "f", "arguments": json.dumps({text: text})}}
    ]
    messages = [
        {"role": "system", "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text, "tool_calls": calls},
        {"role": "tool", "content": text, "tool_call_id": calls[0]["id"]},
        {"role": "user", "content": "hi"},
    ]
    return _with("B9", CHATS, (200, 400), messages=messages, tools=[tool])  # 400: too long for so small a context


def _template_of_the_clients(chance: random.Random) -> Hostile:
    field, value = chance.choice(
        [
            ("chat_template", "{{ messages }}"),
            ("chat_template_kwargs", {"tokenize": True}),
            ("chat_template_kwargs", {"messages": "x"}),
            ("chat_template_kwargs", {"add_generation_prompt": False}),
            ("chat_template_kwargs", {"x": {"y": 1}}),
            ("chat_template_kwargs", {str(n): n for n in range(10_000)}),
            ("chat_template_kwargs", {"x" * 100_000: 1}),
            ("chat_template_kwargs", {"raise_exception": "x"}),
        ]
    )
    return _with("A4", CHATS, **{field: value})


# ---- B10, B11: schemas and grammars


def _schema(schema: object) -> Body:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _bad_schema(chance: random.Random) -> Hostile:
    """What is no schema, or none that can be enforced, be it of a whole answer or of an argument."""
    number = chance.randrange(10**6)
    schemas: list[Body] = [
        *({"type": 123}, {"type": "strin"}, {"type": "string", "pattern": 5}, {"$ref": "#/nowhere"}, {"required": 5}),
        *({"$ref": "http://127.0.0.1:1/x.json"}, {"$ref": "file:///etc/passwd"}, {"minimum": "x"}, {"items": 5}),
        *({"type": "string", "pattern": "(?<=x)*"}, {"type": "string", "pattern": "("}, {"not": {}}),
        *({"type": "array", "uniqueItems": True}, {"type": "array", "prefixItems": 5}),
        *({"type": "string", "format": f"no-{number}"}, {"type": "object", "minProperties": 5 + number}),
    ]
    schema = chance.choice(schemas)
    if chance.random() < 0.3:
        function = {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": schema}}}
        tools = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
        return _with("B10", CHATS, **tools)
    return _with("B10", CHATS, **_schema(schema))


def _schema_of_nothing(chance: random.Random) -> Hostile:
    """What no value satisfies; as an optional argument it would be left out."""
    schemas: list[object] = [
        *({"$ref": "#"}, {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"enum": []}, [], 5, "x", False),
        {"type": "string", "minLength": 2, "maxLength": 1},
    ]
    return _with("B10", CHATS, **_schema(chance.choice(schemas)))


def _endless_text(chance: random.Random) -> Hostile:
    """It can be begun, and is always cut."""
    return _with("B10", CHATS, (200, 400), **_schema({"type": "string", "minLength": 10**9 + chance.randrange(10**6)}))


def _costly_grammar(chance: random.Random) -> Hostile:
    """What takes the compiler's time. 503: another one is still being compiled."""
    number = chance.randrange(10**6)
    costly: list[Callable[[], Body]] = [
        lambda: _schema({"enum": [f"value {n} {number}" for n in range(100_000)]}),
        lambda: _schema({"properties": {f"{n:x}": {} for n in range(12_000)}}),
        lambda: {"grammar": {"type": "gbnf", "definition": "root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000}},
        lambda: {"grammar": "start: " + "(" * 30_000 + f'"{number}"' + ")" * 30_000},
        lambda: {"grammar": "start: A\nA: " + " & ".join(f"/.*{n}{number}.*/" for n in range(300))},
        lambda: {"grammar": {"type": "regex", "definition": "(" * 5_000 + "a" + "){0,200}" * 5_000}},
    ]
    return _with("B11", CHATS, (400, 413, 503), **chance.choice(costly)())


def _bad_grammar(chance: random.Random) -> Hostile:
    grammars: list[object] = [
        *("start: start", "start: <|im_end|>", "start: A", "", "nonsense", "start: (", 'start: "a"\nstart: "b"', "%%%"),
        *(
            '%llguidance {"no_such_thing": 1}\nstart: A',
            "start: @content",
            'start: "a" {5,2}',
            "root ::= x",
        ),
        *({"type": "regex", "definition": "("}, {"type": "regex", "definition": "(?<=x)y"}, {"type": "peg"}, 5, []),
        *({"type": "regex", "definition": "a{2,1}"}, {"type": "lark", "definition": "x" * 100_000}, {"type": "gbnf"}),
    ]
    return _with("B11", CHATS, grammar=chance.choice(grammars))


def _fresh_grammar(chance: random.Random) -> Hostile:
    """Good ones, each another: what is kept of them must be bounded."""
    properties = {f"p{chance.randrange(10**9)}": {"type": "integer"} for _ in range(20)}
    return _with("B11", CHATS, SERVED, **_schema({"type": "object", "properties": properties}))


# ---- B13: what is no text


def _no_text(chance: random.Random) -> Hostile:
    part = chance.choice(
        [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.svg"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"file_id": "../../etc/passwd"}},
            {"type": "video_url", "video_url": {"url": "http://127.0.0.1:1/"}},
            *({"type": "text"}, {"type": "text", "text": 5}, {"type": ["text"]}, {}, None, 5),
        ]
    )
    return _with("B13", CHATS, messages=[{"role": "user", "content": [part]}])


ROWS: dict[Maker, float] = {
    _lying_length: 6,
    _bad_chunks: 3,
    _huge_body: 0.2,
    _other_encoding: 4,
    _other_type: 3,
    _deep: 5,
    _deep_enough: 1,
    _not_json: 14,
    _mutilated: 6,
    _bad_number: 12,
    _number_out_of_range: 8,
    _too_many: 5,
    _context_overflow: 6,
    _context_fits_exactly: 0.2,
    _bad_token_ids: 6,
    _strange_text: 4,
    _surrogate: 6,
    _unknown_model: 5,
    _forged_role: 1,
    _template_of_the_clients: 5,
    _bad_schema: 4,
    _schema_of_nothing: 1,
    _endless_text: 0.2,
    _costly_grammar: 0.3,
    _bad_grammar: 4,
    _fresh_grammar: 1,
    _no_text: 6,
}
"""Kinds of requests, and how often they come."""
