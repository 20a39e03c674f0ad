"""The pages and the API of calls: everybody of the tenant reads them, nobody else, and no prompt is in any of them."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from attestation import statements
from inference import opinions
from inference.models import Adapter, BaseModel, Feedback, Replica, Residence
from tenants import decisions, keys, refusals
from tenants.costs import exports
from tenants.models import Member, RefusalCount, UsageEvent
from tenants.tests import usage
from tenants.traffic import search

pytestmark = pytest.mark.journey
ROLES = [*Member.Role.values, "operator"]
PAGES = ("traffic", "calls", "feedback")
API = "/api/v1/t/acme/"


@pytest.fixture
def key(cast, redis_url):
    return keys.create(cast.acme, "destek-web", cast.owner)[0]


@pytest.fixture
def booked(cast, key):
    """Five calls of Acme, the newest first, and one of Globex."""
    price, now = usage.price(), timezone.now() - timedelta(minutes=2)
    facts: list[dict[str, Any]] = [
        {"latency_ms": 250, "ttft_ms": 40, "price": price.pk, "cost": 1_900, "input_tokens": 7, "output_tokens": 3},
        {"served": "acme.destek-v1-abababab", "adapter_digest": "ab" * 32, "arm": "challenger", "weight_bp": 1_000},
        {"status": "blocked", "reason": "=cmd|' /C calc'!A0", "end_user": "=1+1", "cost": 0},
        {"status": "aborted", "reason": "engine_unavailable", "cost": 0},
        {"engine": "gpu-1", "engine_version": "vllm 0.11.2", "load_epoch": 4, "base_digest": "cd" * 32},
    ]
    events = [usage.call(cast.acme, key, now - timedelta(seconds=n), n, **each) for n, each in enumerate(facts)]
    strange = keys.create(cast.globex, "globex-web", cast.outsider)[0]
    usage.book([*events, usage.call(cast.globex, strange, now, 0)])
    return [event.request_id for event in events]


@pytest.fixture
def at(client, cast):
    def get(user, name, *args, tenant="acme", language="en", headers=None, **query):
        user.language = language
        user.save()
        client.force_login(user)
        return client.get(reverse(name, args=[tenant, *args]), query, headers=headers)

    return get


@pytest.mark.parametrize("role", ROLES)
def test_everybody_of_the_tenant_reads_every_page(at, cast, booked, role):
    for name in PAGES:
        page = at(getattr(cast, role), name)
        assert page.status_code == 200, name
        assert role == "operator" or "globex" not in page.text.lower(), name  # who may choose between tenants
    assert at(getattr(cast, role), "call", booked[0]).status_code == 200


def test_a_stranger_and_another_tenant_find_nothing(at, client, cast, booked):
    for name in (*PAGES, "calls_csv"):
        assert at(cast.outsider, name).status_code == 404, name
    assert at(cast.outsider, "call", booked[0]).status_code == 404
    assert at(cast.outsider, "call", booked[0], tenant="globex").status_code == 404
    assert at(cast.owner, "call", "req_globex_0").status_code == 404
    client.logout()
    assert client.get(reverse("traffic", args=["acme"])).status_code == 302


def test_the_live_part_alone_comes_for_htmx_and_counts(at, cast, booked):
    whole, part = at(cast.auditor, "traffic"), at(cast.auditor, "traffic", headers={"HX-Request": "true"})
    assert "<html" in whole.text
    assert "<html" not in part.text
    found = part.context["traffic"]
    assert (found.calls, found.blocked, found.broken) == (5, 1, 1)
    assert found.last_minute == 0  # all of them are older
    assert "no engine answered" in part.text
    assert "gpu-1" in part.text


@pytest.fixture
def housed(cast):
    """An adapter of Acme and one of Globex on the replica gpu-1, which is well."""
    base = BaseModel.objects.create(name="demo-base", source="x")
    seen = {"state": "well", "seen_at": timezone.now(), "running": 3, "version": "v1"}
    replica = Replica.objects.create(name="gpu-1", url="http://10.0.0.9:8000", base=base, **seen)
    for tenant in (cast.acme, cast.globex):
        statement = statements.sign(str(tenant.pk), statements.ADAPTER, "x", "0" * 64, {})
        facts = {"version": 1, "base": base, "digest": "0" * 64, "statement": statement, "state": "loaded"}
        made = Adapter.objects.create(tenant=tenant, name=f"{tenant.slug}-tr", **facts)
        Residence.objects.create(replica=replica, adapter=made, state="eligible", load_epoch=7)
    return replica


def test_replicas_show_the_tenants_own_adapters_and_no_address(at, cast, key, housed):
    page = at(cast.auditor, "traffic").text
    for fact in ("gpu-1", "Running", "acme-tr-v1", "load 7"):
        assert fact in page
    for secret in ("globex", "10.0.0.9", "adapters of all tenants"):
        assert secret not in page
    operators = at(cast.operator, "traffic").text
    assert "10.0.0.9" in operators
    assert "2 adapters of all tenants answer here" in operators


@pytest.mark.parametrize(
    ("facts", "said"),
    [({"state": "away"}, "Not reachable"), ({"state": "strange"}, "Another model"), ({"seen_at": None}, "Unknown")],
)
def test_a_replica_that_is_not_well_says_so_and_its_adapters_do_not_answer(at, cast, key, housed, facts, said):
    Replica.objects.update(**facts)
    page = at(cast.auditor, "traffic").text
    assert said in page
    assert "No engine answers" in page
    assert "Answering" not in page


def test_without_calls_it_says_what_to_do_and_not_zero_everywhere(at, cast, redis_url):
    page = at(cast.developer, "traffic")
    assert "No call in the last 15 minutes." in page.text
    assert reverse("playground", args=["acme"]) in page.text
    assert "no answered call" in page.text


def test_counters_that_do_not_answer_leave_the_calls_under_way_unknown(at, cast, booked, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "under way: unknown" in at(cast.auditor, "traffic").text


def test_a_page_asks_a_bounded_number_of_questions(client, cast, booked, django_assert_max_num_queries):
    client.force_login(cast.auditor)
    addresses = [reverse(name, args=["acme"]) for name in PAGES]
    for address in [*addresses, reverse("call", args=["acme", booked[0]])]:
        with django_assert_max_num_queries(12):
            client.get(address)


def test_filters_narrow_and_pages_go_on(at, cast, key, booked):
    assert [row.request_id for row, *_ in at(cast.auditor, "calls", status="blocked").context["rows"]] == [booked[2]]
    assert not at(cast.auditor, "calls", end_user="nobody").context["rows"]
    now = timezone.now() - timedelta(minutes=30)
    usage.book([usage.call(cast.acme, key, now - timedelta(seconds=n), 100 + n) for n in range(30)])
    first = at(cast.auditor, "calls")
    second = at(cast.auditor, "calls", after=first.context["found"].after)
    seen = [row.request_id for page in (first, second) for row, *_ in page.context["rows"]]
    assert len(seen) == len(set(seen)) == 35
    assert not second.context["found"].after
    assert at(cast.auditor, "calls", after="nonsense").status_code == 200


def test_a_wrong_filter_is_said_at_its_field(at, cast, booked):
    page = at(cast.auditor, "calls", min_ms="viel")
    assert page.status_code == 422
    assert "Enter a whole number" in page.text


def test_an_id_opens_its_page_and_a_wrong_one_says_so(at, cast, key, booked):
    found = at(cast.auditor, "calls", id=f" {booked[1]} ")
    assert (found.status_code, found.url) == (302, reverse("call", args=["acme", booked[1]]))
    facts = ("model_not_allowed", "key", "allowed_models")
    text = decisions.issue(refusals.secret(), decisions.Decision(str(cast.acme.pk), key.pk, 1, *facts, model="x"))
    assert at(cast.auditor, "calls", id=text).url == reverse("refusal", args=["acme", text])
    for wrong in ("req_globex_0", "dec_nonsense", "x" * 500, "a\0b"):
        page = at(cast.auditor, "calls", id=wrong)
        assert page.status_code == 422, wrong
        assert "No call and no refusal of this tenant has this id." in page.text


def test_a_search_that_looked_at_enough_says_how_far(at, cast, booked, monkeypatch):
    monkeypatch.setattr(search, "LOOKED", 2)
    page = at(cast.auditor, "calls", status="aborted")
    assert "2 calls were looked through" in page.text
    assert 'rel="next"' in page.text


def test_one_call_shows_all_of_its_row_and_how_its_cost_came_about(at, cast, booked):
    page = at(cast.auditor, "call", booked[0]).text
    assert "As booked" in page
    assert "$0.0000007" in page  # 7 tokens at $0.10 a million
    assert "$0.000001900" in page
    assert reverse("receipt", args=["acme", booked[0]]) in page
    challenger = at(cast.auditor, "call", booked[1]).text
    assert "chosen with a probability of 10%" in challenger
    assert "ab" * 32 in challenger
    replica = at(cast.auditor, "call", booked[4]).text
    for fact in ("gpu-1", "vllm 0.11.2", "load 4 of the adapter", "cd" * 32):
        assert fact in replica
    ours = at(cast.auditor, "call", booked[3]).text
    assert "tell the operator" in ours
    assert "Nothing was used" in at(cast.auditor, "call", booked[3]).text or "Cost" in ours


def test_a_corrected_call_shows_what_it_came_to(at, cast, key, booked):
    now = timezone.now()
    usage.book([usage.call(cast.acme, key, now, 50, cost=5_000, status="estimated", reason="gateway_lost")])
    usage.book([usage.call(cast.acme, key, now, 50, cost=4_000)])
    page = at(cast.auditor, "call", "req_acme_50")
    assert page.context["net"] == 4_000
    assert "Correction" in page.text


def test_the_file_holds_what_the_page_shows_and_no_formula(at, cast, booked, monkeypatch):
    monkeypatch.setattr(search, "CHUNK", 2)
    answer = at(cast.auditor, "calls_csv")
    text = b"".join(answer.streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(text.removeprefix(exports.BOM), newline="")))
    assert [row["request_id"] for row in rows] == booked
    assert rows[2]["end_user"] == "'=1+1"
    assert rows[2]["reason"].startswith("'=")
    assert "attachment" in answer.headers["Content-Disposition"]
    one = b"".join(at(cast.auditor, "calls_csv", status="aborted").streaming_content).decode()
    assert one.count("\n") == 2
    assert booked[3] in one


@pytest.fixture
def said(cast, key, booked):
    now = timezone.now()
    told = [(5, "", "süper"), (2, "", "kötü"), (None, "down", ""), (None, "up", ""), (4, "", "")]
    for number, (score, thumbs, comment) in enumerate(told):
        made = Feedback.objects.create(
            tenant=cast.acme, key=key, request_id=booked[number], score=score, thumbs=thumbs, comment=comment
        )
        Feedback.objects.filter(pk=made.pk).update(at=now - timedelta(minutes=number))
    return booked


def test_feedback_is_counted_and_the_disliked_come_first(at, cast, said):
    page = at(cast.auditor, "feedback")
    figures = page.context["figures"]
    assert (figures.n, figures.scored, figures.up, figures.down, figures.low) == (5, 3, 1, 1, 2)
    assert figures.average == pytest.approx(11 / 3)
    assert figures.scores == (0, 1, 0, 1, 1)
    assert [each.request_id for each, _call in page.context["rows"]] == [said[1], said[2]]
    assert len(at(cast.auditor, "feedback", show="all").context["rows"]) == 5
    by = {line["served"]: (line["n"], line["average"], line["low"]) for line in page.context["by_answer"]}
    assert by["acme.destek-v1-abababab"] == (1, 2.0, 1)
    assert by["demo-base"] == (4, 4.5, 1)


def test_old_feedback_is_not_of_this_month_and_anothers_is_nobodys(at, cast, said):
    Feedback.objects.update(at=timezone.now() - timedelta(days=40))
    assert at(cast.auditor, "feedback").context["figures"].n == 0
    assert at(cast.outsider, "feedback", tenant="globex").context["figures"].n == 0
    assert opinions.figures(Feedback.objects.none()).average is None


def test_a_calls_page_and_api_have_its_feedback(at, client, cast, said):
    assert "kötü" in at(cast.auditor, "call", said[1]).text
    told = client.get(f"{API}calls/{said[1]}/").json()
    assert told["feedback"][0]["comment"] == "kötü"
    assert client.get(f"{API}feedback/summary/").json()["average"] == pytest.approx(11 / 3)


def test_the_api_says_what_the_pages_say(client, cast, key, booked):
    RefusalCount.objects.create(
        tenant=cast.acme, key_id=key.pk, minute=timezone.now().replace(second=0, microsecond=0), limit="budget", count=3
    )
    client.force_login(cast.auditor)
    told = client.get(f"{API}traffic/?span=1h").json()
    assert told["calls"] == 5
    assert {(row["side"], row["reason"], row["calls"]) for row in told["unanswered"]} >= {
        ("yours", "budget", 3),
        ("ours", "engine_unavailable", 1),
    }
    assert client.get(f"{API}traffic/?span=1y").status_code == 400
    found = client.get(f"{API}calls/?limit=2").json()
    following = client.get(found["next"]).json()
    assert [row["request_id"] for page in (found, following) for row in page["results"]] == booked[:4]
    assert client.get(f"{API}calls/?cursor=nonsense").status_code == 400
    one = client.get(f"{API}calls/?adapter=abab").json()["results"]
    assert [row["request_id"] for row in one] == [booked[1]]
    row = client.get(f"{API}calls/{booked[0]}/").json()
    assert [(line["kind"], line["tokens"]) for line in row["computed"]] == [("input", 7), ("output", 3)]
    assert client.get(f"{API}calls/req_globex_0/").status_code == 404
    text = b"".join(client.get(f"{API}calls.csv?status=blocked").streaming_content).decode()
    assert text.count("\n") == 2


def test_a_usage_key_reads_calls_and_an_inference_key_does_not(client, cast, booked):
    _, reads = keys.create(cast.acme, "u", scopes=["usage"])
    _, calls = keys.create(cast.acme, "i", scopes=["inference"])
    for address in ("traffic/", "calls/", f"calls/{booked[0]}/", "feedback/summary/", "status/"):
        assert client.get(API + address, headers={"Authorization": f"Bearer {reads}"}).status_code == 200, address
        assert client.get(API + address, headers={"Authorization": f"Bearer {calls}"}).status_code == 404, address


def test_no_row_holds_a_prompt_to_show():
    """What a page could show of a call is what its row has: digests, and no text of prompt or answer."""
    names = {field.name for field in UsageEvent._meta.fields}
    assert {"request_digest", "answer_digest"} <= names
    assert not names & {"prompt", "messages", "answer", "content", "request", "response"}
