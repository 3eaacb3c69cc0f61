"""The page at /docs."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx

from server.api.openapi.page import build_page
from tests.fakes.described import document


class Reader(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


async def test_it_is_served_and_may_fetch_nothing(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")

    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


def test_it_shows_every_operation_and_needs_no_script_and_no_network() -> None:
    page = read(build_page(document()))

    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in page.text
            assert operation["operationId"] in page.ids
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert all(link.startswith(("#", "/")) for link in page.links)


def test_what_any_request_may_be_refused_with_is_told_once() -> None:
    page = read(build_page(document()))

    assert all(page.text.count(each["description"]) == 1 for each in document()["components"]["responses"].values())


def test_every_link_leads_somewhere_once() -> None:
    page = read(build_page(document()))

    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_descriptions_are_text_and_never_markup() -> None:
    schema = {"type": "object", "properties": {"<b>": {"description": "a <script> & `<i>`", "const": "<u>"}}}
    info = {"title": "T", "version": "1", "description": ""}

    components = {"schemas": {"S": schema}, "responses": {}}
    page = read(build_page({"info": info, "tags": [], "paths": {}, "components": components}))

    assert not page.tags & {"b", "script", "i", "u"}
    assert "a <script> & <i>" in page.text
