"""Callers of the REST API as tests make them."""

from __future__ import annotations

from typing import Any

from rest_framework.test import APIClient

from tenants import keys
from tenants.models import Tenant

ACME = "/api/v1/t/acme/"


def client(user: Any = None, key: str = "", **headers: str) -> APIClient:
    """A person's session, or a key's text, or nobody. Bodies are JSON."""
    made = APIClient()
    made.default_format = "json"
    if user:
        made.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    if key:
        headers["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    made.credentials(**headers)
    return made


def by_key(tenant: Tenant, *scopes: str) -> APIClient:
    return client(key=keys.create(tenant, "test", scopes=scopes)[1])


def is_problem(answer: Any, status: int) -> dict[str, Any]:
    """The members of the problem that an answer is."""
    assert answer.status_code == status, answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["type"] == "about:blank" or body["type"].startswith("urn:paramstack:problem:")
    return body
