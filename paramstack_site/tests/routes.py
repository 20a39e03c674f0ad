"""Every route of the URL configuration, ready to be asked: a route that is added is covered by being there.

What a parameter names is said by the word before it: an object of the tenant (OBJECTS), or a plain value that every
tenant has (VALUES). Another word fails the test until it is entered there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import URLResolver, get_resolver

CONSOLE, REST, ADMIN = "t/<slug:slug>/", "api/v1/t/<slug:slug>/", "admin/"
OBJECTS = {
    "datasets": "dataset",
    "preferences": "rlaif_run",
    "pairs": "pair",
    "runs": "run",
    "jobs": "job",
    "adapters": "adapter",
    "aliases": "alias",
    "rollouts": "rollout",
    "keys": "key",
    "usage": "receipt",
    "receipts": "receipt",
    "calls": "receipt",
    "members": "member",
    "invitations": "invitation",
    "prices": "price",
    "refusals": "decision",
}
VALUES = {"statement": "202611", "statements": "202611"}
PARAMETER = re.compile(r"(\w+)/<(?:\w+:)?\w+>")


@dataclass(frozen=True)
class Route:
    pattern: str
    view: Any

    @property
    def methods(self) -> list[str]:
        """What the view accepts; a page, which does not say, is asked what a browser asks."""
        known = getattr(getattr(self.view, "cls", None), "http_method_names", ["get", "post"])
        return [name.upper() for name in known if name not in {"options", "head", "trace"}]

    @property
    def names_an_object(self) -> bool:
        return any(word in OBJECTS for word in PARAMETER.findall(self.pattern))

    def address(self, slug: str, furnished: dict[str, Any]) -> str:
        """With `furnished`'s keys where the parameters stand. Fails for a parameter that is not known."""
        known = VALUES | {"t": slug} | {word: furnished[name] for word, name in OBJECTS.items()}
        found = PARAMETER.sub(lambda m: f"{m[1]}/{known.get(m[1], m[0])}", self.pattern)
        if "<" in found:
            pytest.fail(
                f"What does the parameter of {self.pattern} name? Enter the word before it in OBJECTS or VALUES."
            )
        return f"/{found}"


def every(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[Route]:
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        pattern = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from every(entry.url_patterns, pattern)
        else:
            yield Route(pattern, entry.callback)


def under(*prefixes: str) -> list[Route]:
    return [route for route in every() if route.pattern.startswith(prefixes)]


def of_objects(*prefixes: str) -> list[Route]:
    """Those that name an object besides the tenant."""
    return [route for route in under(*prefixes) if route.names_an_object]


def asked(
    client: Client,
    slug: str,
    furnished: dict[str, Any],
    routes: list[Route],
    values: dict[str, Any] | None = None,
    leave: str = "",
) -> Iterator[tuple[str, Any]]:
    """The answer of each route to each method but `leave`, with `values` as query or body: (METHOD address, answer)."""
    client.raise_request_exception = False
    for route in routes:
        address = route.address(slug, furnished)
        for method in route.methods:
            if method != leave:
                yield f"{method} {address}", ask(client, method, address, values or {})


def ask(client: Client, method: str, address: str, values: dict[str, Any]) -> Any:
    form = urlencode(values, doseq=True)
    if method == "GET":
        return client.get(f"{address}?{form}")
    if address.startswith("/api/"):
        return client.generic(method, address, json.dumps(values, default=str), "application/json")
    return client.generic(method, address, form, "application/x-www-form-urlencoded")


def said(answer: Any) -> str:
    """What is in the answer, in small letters."""
    content = b"".join(answer) if answer.streaming else answer.content
    return str(content.decode().lower())
