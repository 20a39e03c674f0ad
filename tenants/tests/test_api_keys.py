"""Keys by REST: who may make, change, rotate and revoke them, and what a wrong one is told."""

import base64
from datetime import timedelta

import pytest
from django.utils import timezone

from tenants import keys, keytext
from tenants.models import APIKey, AuditEntry
from tenants.tests.api_client import ACME, by_key, client, is_problem

pytestmark = pytest.mark.django_db
KEYS = f"{ACME}keys/"


@pytest.mark.parametrize(
    ("role", "status"), [("owner", 201), ("engineer", 201), ("developer", 201), ("reviewer", 403), ("auditor", 403)]
)
def test_who_makes_keys(cast, role, status):
    assert client(getattr(cast, role)).post(KEYS, {"name": "x"}).status_code == status
    assert APIKey.objects.count() == (status == 201)


def test_strangers_find_no_keys(cast):
    key, _ = keys.create(cast.acme, "x")
    for stranger in (client(cast.outsider), by_key(cast.globex, "manage"), by_key(cast.acme, "inference")):
        for address in (KEYS, f"{KEYS}{key.pk}/", f"{KEYS}{key.pk}/quota/"):
            is_problem(stranger.get(address), 404)
        is_problem(stranger.post(f"{KEYS}{key.pk}/rotate/"), 404)
        is_problem(stranger.delete(f"{KEYS}{key.pk}/"), 404)
    is_problem(client().get(KEYS), 401)
    theirs, _ = keys.create(cast.globex, "g")
    for verb, address in (("get", ""), ("delete", ""), ("post", "rotate/"), ("patch", "quota/"), ("patch", "")):
        is_problem(getattr(client(cast.owner), verb)(f"{KEYS}{theirs.pk}/{address}"), 404)
    theirs.refresh_from_db()
    assert theirs.revoked_at is None


def test_a_key_is_made_changed_rotated_revoked(cast):
    caller = by_key(cast.acme, "manage")
    end = (timezone.now() + timedelta(days=3)).isoformat()
    wanted = {"name": "build", "scopes": ["inference"], "allowed_models": ["destek"], "expires_at": end}
    made = caller.post(KEYS, wanted | {"default_max_tokens": 77})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    body = made.json()
    assert (body["allowed_models"], body["default_max_tokens"]) == (["destek"], 77)
    assert keys.authenticate(body["key"])
    one = f"{KEYS}{body['id']}/"
    assert "key" not in caller.get(one).json()
    assert caller.patch(one, {"name": "ci", "expires_at": None}).json()["name"] == "ci"
    fresh = caller.post(f"{one}rotate/", {"grace_seconds": 60})
    assert fresh.status_code == 201
    assert fresh.json()["rotated_from"] == body["id"]
    assert keys.authenticate(body["key"])
    again = is_problem(caller.post(f"{one}rotate/", {}), 409)
    assert again["type"] == "urn:paramstack:problem:ended"
    assert caller.delete(one).status_code == 204
    assert keys.authenticate(body["key"]) is None
    assert keys.authenticate(fresh.json()["key"])
    is_problem(caller.patch(one, {"name": "y"}), 409)


def test_the_log_names_the_key_that_did_it(cast):
    manager, text = keys.create(cast.acme, "m", cast.owner, ["manage"])
    client(key=text).post(KEYS, {"name": "x"})
    entry = AuditEntry.objects.filter(action="key.create").latest("pk")
    assert (entry.actor, entry.key_id) == (None, manager.pk)
    client(cast.owner).post(KEYS, {"name": "y"})
    assert AuditEntry.objects.filter(action="key.create", actor=cast.owner).latest("pk").key_id == ""


def test_a_developer_gets_no_key_that_manages(cast):
    manager, _ = keys.create(cast.acme, "m", scopes=["manage"])
    mine, _ = keys.create(cast.acme, "x")
    caller = client(cast.developer)
    is_problem(caller.post(KEYS, {"name": "x", "scopes": ["manage"]}), 403)
    is_problem(caller.post(f"{KEYS}{manager.pk}/rotate/"), 403)
    is_problem(caller.patch(f"{KEYS}{manager.pk}/", {"name": "y"}), 403)
    is_problem(caller.patch(f"{KEYS}{mine.pk}/", {"scopes": ["manage"]}), 403)
    assert caller.post(f"{KEYS}{mine.pk}/rotate/").status_code == 201
    assert not APIKey.objects.filter(rotated_from=manager).exists()


def test_a_wrong_key_is_told_what_is_wrong_with_it(cast):
    key, text = keys.create(cast.acme, "x", scopes=["usage"])
    last = "0" if text[-1] != "0" else "1"
    typo = is_problem(client(key=text[:-1] + last).get(KEYS), 401)
    assert typo["type"] == "urn:paramstack:problem:mistyped-key"
    unknown = is_problem(client(key=keytext.write(*keytext.generate())).get(KEYS), 401)
    wrong = is_problem(client(key=keytext.write(key.pk, keytext.generate()[1])).get(KEYS), 401)
    assert unknown["type"] == "about:blank"
    assert wrong["detail"] == unknown["detail"] != typo["detail"]
    APIKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    expired = is_problem(client(key=text).get(KEYS), 401)
    APIKey.objects.update(expires_at=None, revoked_at=timezone.now())
    revoked = is_problem(client(key=text).get(KEYS), 401)
    assert len({expired["detail"], revoked["detail"], unknown["detail"]}) == 3


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"name": ""},
        {"name": "x" * 81},
        {"name": "a\x00b"},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "scopes": "manage"},
        {"name": "x", "allowed_models": [""]},
        {"name": "x", "expires_at": "tomorrow"},
        {"name": "x", "default_max_tokens": 0},
        {"name": "x", "default_max_tokens": 10**30},
    ],
)
def test_bad_input_names_the_field(cast, wanted):
    answer = client(cast.owner).post(KEYS, wanted)
    body = is_problem(answer, 400)
    if "a\x00b" not in wanted.values():
        assert set(body["errors"]) <= {"name", "scopes", "allowed_models", "expires_at", "default_max_tokens"}
    assert not APIKey.objects.exists()


@pytest.mark.parametrize("end", ["2020-01-01T00:00:00Z", "9999-12-31T00:00:00Z"])
def test_an_end_that_no_key_has(cast, end):
    body = is_problem(client(cast.owner).post(KEYS, {"name": "x", "expires_at": end}), 422)
    assert list(body["errors"]) == ["expires_at"]


@pytest.mark.parametrize("grace", [-1, 30 * 86_400 + 1, "x"])
def test_a_grace_is_bounded(cast, grace):
    key, _ = keys.create(cast.acme, "x")
    is_problem(client(cast.owner).post(f"{KEYS}{key.pk}/rotate/", {"grace_seconds": grace}), 400)


def test_pages_follow_one_another_whatever_comes_meanwhile(cast):
    made = [keys.create(cast.acme, str(n))[0].pk for n in range(5)]
    APIKey.objects.update(created_at=timezone.now() - timedelta(days=1))  # all at one instant
    caller, seen, address = client(cast.auditor), [], f"{KEYS}?limit=2"
    while address:
        body = caller.get(address).json()
        seen += [row["id"] for row in body["results"]]
        keys.create(cast.acme, "newer")
        address = body["next"]
    assert sorted(seen) == sorted(made)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=²", "cursor=x", "cursor=WzFd", "cursor=é"])
def test_a_page_that_is_none(cast, query):
    name = query.split("=")[0]
    assert list(is_problem(client(cast.auditor).get(f"{KEYS}?{query}"), 400)["errors"]) == [name]


@pytest.mark.parametrize(
    "values", ['["x","y"]', "[1,2]", '["2026-01-01T00:00:00Z", "a\\u0000"]', "[99999999999999999999,1]"]
)
def test_a_cursor_of_nonsense(cast, values):
    cursor = base64.urlsafe_b64encode(values.encode()).decode().rstrip("=")
    answer = client(cast.auditor).get(KEYS, {"cursor": cursor})
    assert answer.status_code in {200, 400}
