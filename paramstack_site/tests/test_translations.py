"""Every sentence that a person can see, in pages and in code, has a Turkish one."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path

from babel.messages.extract import extract
from babel.messages.pofile import read_po
from django.conf import settings
from django.utils.translation.template import templatize

KEYWORDS = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
    "pgettext": ((1, "c"), 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}
APPS = ("paramstack_site", "training", "inference", "tenants", "attestation")
Message = tuple[str | None, str]  # context, text


def messages_in(source: str) -> Iterator[Message]:
    for _line, found, _comments, context in extract("python", io.BytesIO(source.encode()), KEYWORDS):
        text = found[0] if isinstance(found, tuple) else found
        if text:
            yield context, text


def calls_in(source: str) -> Iterator[Message]:
    """As `messages_in`, but of a module's syntax tree, which also shows the calls inside of f-strings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KEYWORDS:
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if texts and "pgettext" in node.func.id:
                yield texts[0], texts[1]
            elif texts:
                yield None, texts[0]


def used() -> Iterator[tuple[Path, Message]]:
    root = settings.ROOT
    for path in (root / "templates").rglob("*.html"):
        source = templatize(path.read_text(encoding="utf-8"), origin=str(path))
        source = "\n".join(line.lstrip() for line in source.splitlines())  # its indentation is the page's
        yield from ((path, message) for message in messages_in(source))
    for app in APPS:
        for path in (root / app).rglob("*.py"):
            if not {"tests", "migrations"} & set(path.parts):
                yield from ((path, message) for message in calls_in(path.read_text(encoding="utf-8")))


def translated() -> set[Message]:
    known: set[Message] = set()
    for folder in (settings.ROOT / "locale", *(settings.ROOT / app / "locale" for app in APPS)):
        path = folder / "tr" / "LC_MESSAGES" / "django.po"
        if not path.exists():
            continue
        with path.open("rb") as file:
            for message in read_po(file, locale="tr"):
                text = message.id if isinstance(message.id, str) else message.id[0]
                complete = message.string if isinstance(message.string, str) else all(message.string or [""])
                if complete and not message.fuzzy:
                    known.add((message.context, text))
    return known


def test_every_sentence_is_in_turkish():
    known = translated()
    missing = sorted({f"{path.name}: {message}" for path, message in used() if message not in known})
    assert not missing, "\n".join(missing)
