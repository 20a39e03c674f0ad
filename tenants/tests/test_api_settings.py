"""Tenants, members, limits, budgets and prices by REST: as each role, as a stranger, with keys, with bad input."""

from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from tenants import keys, members, prices
from tenants.models import NANO, AuditEntry, Budget, Invitation, Member, Price, Quota, Tenant
from tenants.tests.api_client import ACME, by_key, client, is_problem

pytestmark = pytest.mark.django_db
ROLES = ("owner", "engineer", "developer", "reviewer", "auditor")
# What only an owner changes: verb, address, body.
OWNED = [
    ("patch", "", {"name": "Yeni"}),
    ("patch", "quota/", {"requests_per_minute": 1}),
    ("put", "budget/", {"monthly": "1"}),
    ("post", "invitations/", {"email": "a@example.com", "role": "auditor"}),
]
READ = {"": 200, "quota/": 200, "budget/": 200, "prices/": 200, "usage/": 200, "refusals/": 200, "usage/summary/": 200}
READ |= {"members/": 403, "invitations/": 403, "keys/": 403, "datasets/": 403, "pairs/": 403}  # by a key of scope usage


@pytest.mark.parametrize(("verb", "address", "body"), OWNED)
def test_an_owner_and_the_operator_change_it_and_nobody_else(cast, verb, address, body):
    for role in ROLES[1:]:
        is_problem(getattr(client(getattr(cast, role)), verb)(ACME + address, body), 403)
    is_problem(getattr(by_key(cast.acme, "manage"), verb)(ACME + address, body), 403)
    is_problem(getattr(by_key(cast.acme, "usage"), verb)(ACME + address, body), 403)
    for stranger in (client(cast.outsider), by_key(cast.globex, "manage"), by_key(cast.acme, "inference")):
        is_problem(getattr(stranger, verb)(ACME + address, body), 404)
    is_problem(getattr(client(), verb)(ACME + address, body), 401)
    assert not AuditEntry.objects.exclude(action="key.create").exists()
    for person in (cast.owner, cast.operator):
        Invitation.objects.all().delete()
        assert getattr(client(person), verb)(ACME + address, body).status_code in {200, 201}


@pytest.mark.parametrize("address", READ)
def test_each_role_reads(cast, address):
    for role in ROLES:
        assert client(getattr(cast, role)).get(ACME + address).status_code == 200
    assert by_key(cast.acme, "manage").get(ACME + address).status_code == 200
    assert by_key(cast.acme, "usage").get(ACME + address).status_code == READ[address]
    for stranger in (client(cast.outsider), by_key(cast.globex, "manage"), by_key(cast.acme, "inference")):
        is_problem(stranger.get(ACME + address), 404)


def test_a_tenant_is_changed_as_a_whole_or_not_at_all(cast):
    is_problem(client(cast.owner).patch(ACME, {"name": "Yeni", "time_zone": "Mars/Olympus"}), 422)
    cast.acme.refresh_from_db()
    assert cast.acme.name == "Acme"
    assert not AuditEntry.objects.exists()


def test_an_address_that_is_none_is_a_problem_too(cast):
    for address in (
        "/api/v1/nothing/",
        "/api/v1/",
        "/api/v1/t/acme/keys",
        "/api/v1/t/nobody/keys/",
        f"{ACME}members/9" * 9,
    ):
        is_problem(client(cast.owner).get(address), 404)
    is_problem(client(cast.owner).put(f"{ACME}keys/", {}), 405)
    is_problem(client(cast.owner).options(f"{ACME}keys/"), 405)
    is_problem(client(cast.owner).get(f"{ACME}members/{10**30}/"), 404)


def test_a_body_that_cannot_be_read(cast):
    caller = client(cast.owner)
    post = f"{ACME}keys/"
    is_problem(caller.post(post, b'{"name": ', content_type="application/json"), 400)
    is_problem(caller.post(post, b'{"name": "\xff"}', content_type="application/json"), 400)
    is_problem(caller.post(post, b'{"name": "a\\u0000"}', content_type="application/json"), 400)
    is_problem(caller.post(post, b'{"name": "\\ud800"}', content_type="application/json"), 400)
    is_problem(caller.post(post, b"[1]", content_type="application/json"), 400)
    is_problem(caller.post(post, b"x", content_type="text/plain"), 415)
    is_problem(caller.post(post, b" " * 3_000_000, content_type="application/json"), 413)


def test_the_operator_makes_a_tenant_and_a_member_sees_his(cast):
    made = client(cast.operator).post("/api/v1/tenants/", {"name": "Çağrı Merkezi İzmir", "owner": "outsider"})
    assert made.status_code == 201
    assert made.json()["slug"] == "cagri-merkezi-izmir"
    assert [row["slug"] for row in client(cast.outsider).get("/api/v1/tenants/").json()["results"]] == [
        "cagri-merkezi-izmir",
        "globex",
    ]
    assert [row["slug"] for row in by_key(cast.acme, "usage").get("/api/v1/tenants/").json()["results"]] == ["acme"]
    assert by_key(cast.acme, "inference").get("/api/v1/tenants/").json()["results"] == []
    assert len(client(cast.operator).get("/api/v1/tenants/").json()["results"]) == 3
    for caller, status in ((client(cast.owner), 403), (by_key(cast.acme, "manage"), 403), (client(), 401)):
        is_problem(caller.post("/api/v1/tenants/", {"name": "x"}), status)
    again = is_problem(client(cast.operator).post("/api/v1/tenants/", {"name": "x", "slug": "acme"}), 409)
    assert list(again["errors"]) == ["slug"]
    is_problem(client(cast.operator).post("/api/v1/tenants/", {"name": "x", "slug": "admin"}), 422)
    is_problem(client(cast.operator).post("/api/v1/tenants/", {"name": "x", "owner": "nobody"}), 400)
    assert Tenant.objects.count() == 3


def test_only_the_operator_suspends(cast):
    is_problem(client(cast.owner).patch(ACME, {"status": "suspended"}), 403)
    operator = client(cast.operator)
    assert operator.patch(ACME, {"status": "suspended"}).json()["status"] == "suspended"
    assert client(cast.auditor).get(ACME).json()["status"] == "suspended"
    assert operator.patch(ACME, {"status": "active"}).json()["status"] == "active"
    operator.patch(ACME, {"status": "closed"})
    is_problem(operator.get(ACME), 404)
    assert "acme" not in str(client(cast.owner).get("/api/v1/tenants/").json())


def test_a_tenant_moves_to_another_zone(cast):
    caller = client(cast.owner)
    answer = caller.patch(ACME, {"time_zone": "Asia/Tokyo", "name": "Acme Tokyo"}).json()
    assert (answer["time_zone"], answer["name"]) == ("Asia/Tokyo", "Acme Tokyo")
    wrong = is_problem(caller.patch(ACME, {"time_zone": "Mars/Olympus"}), 422)
    assert wrong["type"] == "urn:paramstack:problem:unknown-zone"


def test_limits_of_a_tenant_and_of_a_key(cast):
    caller = client(cast.owner)
    answer = caller.patch(f"{ACME}quota/", {"tokens_per_minute": 900}).json()
    assert (answer["requests_per_minute"], answer["tokens_per_minute"]) == (60, 900)
    assert caller.patch(f"{ACME}quota/", {"requests_per_minute": None}).json()["requests_per_minute"] is None
    key, _ = keys.create(cast.acme, "x")
    manager, _ = keys.create(cast.acme, "m", scopes=["manage"])
    assert set(caller.get(f"{ACME}keys/{key.pk}/quota/").json().values()) == {None}
    developer = client(cast.developer)
    assert developer.patch(f"{ACME}keys/{key.pk}/quota/", {"concurrent_calls": 2}).json()["concurrent_calls"] == 2
    is_problem(developer.patch(f"{ACME}keys/{manager.pk}/quota/", {"concurrent_calls": 2}), 403)
    assert Quota.objects.get(tenant=cast.acme, key=None).concurrent_calls is None


@pytest.mark.parametrize("field", Quota.FIELDS)
@pytest.mark.parametrize("wrong", [-1, 10**9, 10**40])
def test_negative_and_absurd_limits(cast, field, wrong):
    body = is_problem(client(cast.owner).patch(f"{ACME}quota/", {field: wrong}), 422)
    assert list(body["errors"]) == [field]
    assert body["type"] == "urn:paramstack:problem:quota-out-of-range"


def test_a_budget_is_decimal_text(cast):
    caller = client(cast.owner)
    assert caller.get(f"{ACME}budget/").json() == {"monthly": "100"}
    assert caller.put(f"{ACME}budget/", {"monthly": "250.000000001"}).json() == {"monthly": "250.000000001"}
    assert Budget.objects.get(tenant=cast.acme).monthly_nano == 250 * NANO + 1
    for wrong in ("9000000.000000001", "-1"):
        is_problem(caller.put(f"{ACME}budget/", {"monthly": wrong}), 422)
    for odd in (250, 0.1, "1e999999999", "NaN", "0.0000000001", "x", None):
        is_problem(caller.put(f"{ACME}budget/", {"monthly": odd}), 400)
    assert caller.put(f"{ACME}budget/", {"monthly": "9000000"}).json() == {"monthly": "9000000"}
    Budget.objects.all().delete()
    assert caller.get(f"{ACME}budget/").json() == {"monthly": None}


def test_members_are_invited_promoted_removed(cast, django_capture_on_commit_callbacks):
    caller = client(cast.owner)
    with django_capture_on_commit_callbacks(execute=True):
        made = caller.post(f"{ACME}invitations/", {"email": "yeni@example.com", "role": "engineer"})
    link = made.json()["link"]
    assert link in mail.outbox[0].body
    assert link.startswith("http://testserver/invitations/")
    listed = caller.get(f"{ACME}invitations/").json()["results"]
    assert "link" not in listed[0]
    again = {"email": "yeni@example.com", "role": "owner"}
    assert list(is_problem(caller.post(f"{ACME}invitations/", again), 409)["errors"]) == ["email"]
    member = members.accept(link.rstrip("/").rsplit("/", 1)[1], cast.outsider)
    one = f"{ACME}members/{member.pk}/"
    assert caller.patch(one, {"role": "owner"}).json()["role"] == "owner"
    is_problem(caller.patch(one, {"role": "king"}), 400)
    assert caller.delete(one).status_code == 204
    last = f"{ACME}members/{Member.objects.get(tenant=cast.acme, role='owner').pk}/"
    for answer in (caller.delete(last), caller.patch(last, {"role": "auditor"})):
        assert is_problem(answer, 409)["type"] == "urn:paramstack:problem:last-owner"


def test_an_invitation_is_withdrawn(cast):
    made, text = members.invite(cast.acme, "a@example.com", "auditor", cast.owner)
    theirs, _ = members.invite(cast.globex, "a@example.com", "auditor", cast.outsider)
    caller = client(cast.owner)
    is_problem(caller.delete(f"{ACME}invitations/{theirs.pk}/"), 404)
    is_problem(caller.get(f"{ACME}members/{Member.objects.get(user=cast.outsider).pk}/"), 404)
    assert caller.delete(f"{ACME}invitations/{made.pk}/").status_code == 204
    with pytest.raises(members.NotOpen):
        members.accept(text, cast.outsider)


PRICE = {"model": "m", "input": "0.10", "output": "0.40"}


def test_the_operator_writes_the_price_book(cast):
    operator = client(cast.operator)
    for caller in (client(cast.owner), client(cast.engineer), by_key(cast.acme, "manage")):
        is_problem(caller.post(f"{ACME}prices/", PRICE), 403)
    made = operator.post(f"{ACME}prices/", PRICE | {"cached": "0.05"})
    assert made.status_code == 201
    body = made.json()
    assert (body["input"], body["output"], body["cached"], body["batch_input"]) == ("0.1", "0.4", "0.05", None)
    assert prices.for_model("m").input_nano_per_mtok == 100_000_000
    later = (timezone.now() + timedelta(days=1)).isoformat()
    second = operator.post(f"{ACME}prices/", PRICE | {"valid_from": later}).json()
    between = operator.post(f"{ACME}prices/", PRICE)
    assert is_problem(between, 409)["type"] == "urn:paramstack:problem:overlap"
    one = f"{ACME}prices/{body['id']}/"
    is_problem(operator.patch(one, {"input": "9"}), 409)
    is_problem(operator.delete(one), 409)
    two = f"{ACME}prices/{second['id']}/"
    assert operator.patch(two, {"input": "9"}).json()["input"] == "9"
    assert client(cast.auditor).get(two).json()["input"] == "9"
    is_problem(client(cast.owner).patch(two, {"input": "8"}), 403)
    assert operator.delete(two).status_code == 204
    assert operator.post(f"{one}end/", {}).status_code == 200
    with pytest.raises(prices.NoPrice):
        prices.for_model("m")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"input": "-1"}, 422),
        ({"output": "10000.01"}, 422),
        ({"input": 0.1}, 400),
        ({"kind": "self_hosted"}, 400),
        ({"valid_until": "2020-01-01T00:00:00Z"}, 422),
        ({"valid_until": "9999-12-31T00:00:00Z"}, 422),
        ({"model": ""}, 400),
    ],
)
def test_prices_that_none_can_be(cast, change, status):
    is_problem(client(cast.operator).post(f"{ACME}prices/", PRICE | change), status)
    assert not Price.objects.exists()


def test_a_gpu_makes_a_price(cast):
    wanted = {"model": "m", "dollars_per_hour": "1.80", "input_tokens_per_second": "5000"}
    answer = client(cast.operator).post(f"{ACME}prices/from-gpu/", wanted | {"output_tokens_per_second": "500"})
    assert answer.status_code == 201
    assert (answer.json()["input"], answer.json()["output"], answer.json()["kind"]) == ("0.1", "1", "self_hosted")
    for wrong in ("0", "-1", "NaN", "1e-999999", "x"):
        body = wanted | {"output_tokens_per_second": wrong}
        assert list(is_problem(client(cast.operator).post(f"{ACME}prices/from-gpu/", body), 422)["errors"])


def test_prices_of_other_tenants_adapters_are_not_shown(cast):
    for model in ("m", "acme/a-v1", "globex/b-v1"):
        prices.set_(model, None, input_nano_per_mtok=1, output_nano_per_mtok=1)
    rows = client(cast.auditor).get(f"{ACME}prices/").json()["results"]
    assert [row["model"] for row in rows] == ["acme/a-v1", "m"]
    hidden = Price.objects.get(model="globex/b-v1")
    is_problem(client(cast.auditor).get(f"{ACME}prices/{hidden.pk}/"), 404)
    assert len(client(cast.auditor).get(f"{ACME}prices/?model=m").json()["results"]) == 1
