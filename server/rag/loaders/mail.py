"""Messages as they were sent: who, when, about what, and the text. Forwarded ones too; other attachments are named."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

from server.rag.documents import ParsedDocument
from server.rag.loaders.decoding import clean, decode
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.html_page import add_html
from server.rag.loaders.plain_text import kind_of, paragraphs
from server.rag.loaders.source_file import SourceFile

_HEADERS = ("From", "To", "Cc", "Date")
_MAX_LEVEL = 6


def load_email(source: SourceFile) -> ParsedDocument:
    message = message_from_bytes(source.content, policy=policy.default)
    builder = DocumentBuilder(source.limits)
    _add_message(builder, message, 1)
    return builder.build("message/rfc822", title=str(message.get("Subject", "")))


def _add_message(builder: DocumentBuilder, message: object, level: int) -> None:
    assert isinstance(message, EmailMessage)
    builder.add_heading(str(message.get("Subject", "")), min(level, _MAX_LEVEL))
    builder.add("paragraph", "\n".join(f"{name}: {message[name]}" for name in _HEADERS if message[name]))
    _add_body(builder, message)
    for part in message.iter_attachments() if message.is_multipart() else ():
        if part.get_content_type() == "message/rfc822" and part.is_multipart():  # forwarded
            _add_message(builder, part.get_payload(0), level + 1)
        elif name := part.get_filename():
            builder.add("list", f"- Attachment: {name}")


def _add_body(builder: DocumentBuilder, message: EmailMessage) -> None:
    """The plain text; the HTML if there is none, or nothing in it."""
    text = _body(message, "plain")
    for start, end in paragraphs(text):
        builder.add(kind_of(text, start), text[start:end])
    if not text.strip():
        add_html(builder, _body(message, "html"))


def _body(message: EmailMessage, subtype: str) -> str:
    """Empty if there is none."""
    part = message.get_body((subtype,))
    payload = part.get_payload(decode=True) if part is not None else None
    if part is None or not isinstance(payload, bytes):
        return ""
    try:
        return clean(payload.decode(part.get_content_charset() or "utf-8"))
    except (LookupError, UnicodeDecodeError):  # unknown, or a wrong promise
        return decode(payload) or ""
