"""The OpenAPI document as one HTML page that needs no script, no other file and no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

JsonSchema = dict[str, Any]

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
details { border: 1px solid #8886; border-radius: 6px; margin: .4rem 0; padding: .3rem .8rem }
summary { cursor: pointer } summary code { font-weight: 600 }
code, pre { font: 13px/1.5 ui-monospace, monospace } pre { overflow: auto; background: #8882; padding: .6rem }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid #8884; padding: .25rem .5rem;
text-align: left; vertical-align: top } :root { color-scheme: light dark } .ignored { opacity: .6 }
"""

_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "length ≥ {}",
    "maxLength": "length ≤ {}",
    "minItems": "items ≥ {}",
    "maxItems": "items ≤ {}",
    "pattern": "like {}",
}


def build_page(document: JsonSchema) -> str:
    """Make the page: all operations by topic, then all schemas."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1><p>{_text(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">/openapi.json</a></p>'
        f"<h2>Any request</h2>{_responses(document['components']['responses'])}"
        f"{''.join(_topics(document))}<h2>Schemas</h2>{''.join(_schemas(document))}</body></html>"
    )


def _topics(document: JsonSchema) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'].capitalize())}</h2>"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield _operation(method, path, operation)


def _operation(method: str, path: str, operation: JsonSchema) -> str:
    parts = [_parameters(operation.get("parameters", ()))]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body, <code>{escape(media_type)}</code>: {_content(content)}</p>")
        if "properties" in content["schema"]:
            parts.append(_fields(content["schema"]))
        if "example" in content:
            parts.append(f"<pre>{escape(json.dumps(content['example'], indent=2, ensure_ascii=False))}</pre>")
    own = {status: response for status, response in operation["responses"].items() if "$ref" not in response}
    parts.append(_responses(own))
    head = f"<code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}"
    return f'<details id="{operation["operationId"]}"><summary>{head}</summary>{"".join(parts)}</details>'


def _parameters(parameters: Iterable[JsonSchema]) -> str:
    rows = [
        (_code(each["name"]), f"in the {each['in']}", _type(each["schema"]), _text(each["schema"].get("description")))
        for each in parameters
    ]
    return _table(("Parameter", "", "Type", ""), rows) if rows else ""


def _responses(responses: JsonSchema) -> str:
    return _table(("Status", "", "Answer"), (_response(*each) for each in responses.items()))


def _response(status: str, response: JsonSchema) -> tuple[str, ...]:
    answers = (
        f"<code>{escape(media_type)}</code> {_content(content)}" for media_type, content in response["content"].items()
    )
    return status, _text(response["description"]), "<br>".join(answers)


def _content(content: JsonSchema) -> str:
    schema = content.get("schema", {})
    events = schema.get("properties", {}).get("data", {}).get("anyOf", ())  # of a stream
    shapes = " or ".join(_type(each["contentSchema"]) for each in events if "contentSchema" in each)
    return f"{_text(schema['description'])} {shapes}" if shapes else _type(schema)


def _schemas(document: JsonSchema) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        inside = _fields(schema) if "properties" in schema else f"<p>{_type(schema)}</p>"
        about = f"<p>{_text(schema.get('description'))}</p>"
        yield f'<details id="{escape(name)}" open><summary>{_code(name)}</summary>{about}{inside}</details>'


def _fields(schema: JsonSchema) -> str:
    required = schema.get("required", ())
    rows = (
        (
            _code(name),
            "required" if name in required else "ignored" if field.get("x-ignored") else "",
            _type(field),
            _text(field.get("description")),
        )
        for name, field in schema["properties"].items()
    )
    return _table(("Field", "", "Type", ""), rows)


def _type(schema: Any) -> str:
    """A schema in a few words, with links to others."""
    if not isinstance(schema, dict):
        return "anything"
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#{name}">{name}</a>'
    if parts := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(map(_type, parts))
    if "const" in schema or "enum" in schema:
        return " or ".join(_code(json.dumps(value)) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        name = f"list of {_type(schema['items'])}" if "items" in schema else "list"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        name = f"object of {_type(schema['additionalProperties'])}"
    else:
        name = escape(str(kind)) if kind else "anything"
    bounds = [text.format(escape(str(schema[key]))) for key, text in _BOUNDS.items() if key in schema]
    return f"{name} ({', '.join(bounds)})" if bounds else name


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{lines}</table>"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _text(text: str | None) -> str:
    """Descriptions are Markdown, of which they use only code."""
    parts = escape(text or "", quote=False).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
