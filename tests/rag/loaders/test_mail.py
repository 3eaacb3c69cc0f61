from __future__ import annotations

from email.message import EmailMessage

from tests.fakes.parsed_documents import Read, outline


def message(subject: str = "Grüße") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Ada <ada@example.org>"
    mail["To"] = "grace@example.org"
    mail["Date"] = "Mon, 01 Jan 2024 10:00:00 +0000"
    mail["Subject"] = subject
    return mail


HEADERS = "From: Ada <ada@example.org>\nTo: grace@example.org\nDate: Mon, 01 Jan 2024 10:00:00 +0000"


def test_a_message_is_its_subject_its_people_and_its_text(read: Read) -> None:
    mail = message()
    mail.set_content("Hello,\n\n- one\n- two\n", charset="iso-8859-1")

    document = read("a.eml", mail.as_bytes())

    assert document.title == "Grüße"
    assert outline(document) == [
        ("heading", "Grüße"),
        ("paragraph", HEADERS),
        ("paragraph", "Hello,"),
        ("list", "- one\n- two"),
    ]


def test_plain_text_is_preferred_to_html(read: Read) -> None:
    mail = message()
    mail.set_content("plain")
    mail.add_alternative("<p>html</p>", subtype="html")

    assert read("a.eml", mail.as_bytes()).text.endswith("plain")


def test_html_is_read_where_there_is_no_plain_text(read: Read) -> None:
    mail = message()
    mail.set_content("<h1>Top</h1><p hidden>x</p><p>words", subtype="html")

    assert outline(read("a.eml", mail.as_bytes()))[2:] == [("heading", "Top"), ("paragraph", "words")]


def test_attachments_are_named_but_not_read(read: Read) -> None:
    mail = message()
    mail.set_content("words")
    mail.add_attachment(b"secret", maintype="text", subtype="plain", filename="notes.txt")

    text = read("a.eml", mail.as_bytes()).text

    assert text.endswith("words\n\n- Attachment: notes.txt") and "secret" not in text


def test_a_message_that_is_forwarded_is_read(read: Read) -> None:
    inner, mail = message("Inner"), message("Outer")
    inner.set_content("words")
    mail.set_content("see below")
    mail.add_attachment(inner)

    document = read("a.eml", mail.as_bytes())

    assert [text for kind, text in outline(document) if kind == "heading"] == ["Outer", "Inner"]
    assert document.text.endswith("words")


def test_a_charset_that_does_not_exist_is_guessed(read: Read) -> None:
    content = b"From: a\nSubject: s\nContent-Type: text/plain; charset=x-none\n\n" + "wörds".encode()

    assert read("a.eml", content).text.endswith("wörds")


def test_a_message_of_parts_that_has_none_is_still_read(read: Read) -> None:
    assert read("a.eml", "From: a\nSubject: s\nContent-Type: multipart/mixed\n\nwords").text.startswith("s\n\nFrom: a")
