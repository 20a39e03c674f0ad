"""Every route of the URL configuration, ready to be asked: a route that is added is covered by being there.

What a parameter names is said by the word before it (OBJECTS); another word fails the test until it is entered there.
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
    "rollouts": "rollout",
    "keys": "key",
    "usage": "receipt",
    "receipts": "receipt",
}


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
        """Besides the tenant."""
        return self.pattern.count("<") > 1

    def address(self, slug: str, furnished: dict[str, Any]) -> str:
        """With `furnished`'s keys where the parameters stand. Fails for a parameter that OBJECTS does not know."""
        known = {"t": slug} | {word: furnished[name] for word, name in OBJECTS.items()}
        found = re.sub(r"(\w+)/<(?:\w+:)?\w+>", lambda m: f"{m[1]}/{known.get(m[1], m[0])}", self.pattern)
        if "<" in found:
            pytest.fail(f"Which object does {self.pattern} show? Enter the word before its parameter in OBJECTS.")
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


def asked(
    client: Client,
    slug: str,
    furnished: dict[str, Any],
    routes: list[Route],
    values: dict[str, Any] | None = None,
) -> Iterator[tuple[str, Any]]:
    """The answer of each route to each method, with `values` as query or body: (METHOD address, answer)."""
    client.raise_request_exception = False
    for route in routes:
        address = route.address(slug, furnished)
        for method in route.methods:
            yield f"{method} {address}", ask(client, method, address, values or {})


def ask(client: Client, method: str, address: str, values: dict[str, Any]) -> Any:
    form = urlencode(values, doseq=True)
    if method == "GET":
        return client.get(f"{address}?{form}")
    if address.startswith("/api/"):
        return client.generic(method, address, json.dumps(values, default=str), "application/json")
    return client.generic(method, address, form, "application/x-www-form-urlencoded")
