"""The monthly statement: its totals are the ledger's, its parts add up, and it says what it rests on."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from tenants import costs, keys
from tenants.costs import statements
from tenants.models import NANO, LedgerProof, RefusalCount, UsageMonth
from tenants.tests import usage

ADDED = ("calls", "input_tokens", "cached_tokens", "output_tokens")


@pytest.fixture
def booked(cast, redis_url):
    prices = [usage.price(), usage.price("adapter", 150_000_000, 600_000_000)]
    usage.price("unused")
    made = [keys.create(cast.acme, name)[0] for name in ("web", "mobil")]
    usage.book(usage.spread(cast.acme, made, prices, 200, timezone.now(), 50))
    at = timezone.now() - timedelta(minutes=1)
    usage.book([usage.call(cast.acme, made[0], at, 900, cost=5_000, status="estimated")])
    usage.book([usage.call(cast.acme, made[0], at, 900, cost=4_000, output_tokens=1)])
    return cast


def nano(text):
    return int(Decimal(text) * NANO)


def test_totals_equal_the_month_and_parts_equal_the_totals(booked):
    for sums in UsageMonth.objects.filter(tenant=booked.acme):
        told = statements.of(booked.acme, sums.month).plain()
        assert nano(told["totals"]["cost"]) == sums.cost_nano
        assert {name: told["totals"][name] for name in ADDED} == {name: getattr(sums, name) for name in ADDED}
        for part in statements.PARTS:
            assert sum(nano(row["cost"]) for row in told[part]) == sums.cost_nano
            assert {n: sum(row[n] for row in told[part]) for n in ADDED} == {n: getattr(sums, n) for n in ADDED}


def test_parts_are_those_of_the_cost_pages(booked):
    month = costs.this_month(booked.acme)
    found = costs.parts(booked.acme, month)
    for name in statements.PARTS:
        assert found[name] == getattr(costs, name)(booked.acme, month)


def test_it_names_the_prices_the_corrections_the_refusals_and_the_proof(booked):
    month = costs.this_month(booked.acme)
    RefusalCount.objects.create(tenant=booked.acme, key_id="k", minute=timezone.now(), limit="budget", count=3)
    RefusalCount.objects.create(tenant=booked.globex, key_id="g", minute=timezone.now(), limit="budget", count=9)
    numbers = {"tenants": 1, "open_calls": 0, "held_nano": 0, "spent_nano": 0}
    LedgerProof.objects.create(nonce="1", at=timezone.now(), position="1-1", holds=True, **numbers)
    told = statements.of(booked.acme, month).plain()
    assert {price["model"] for price in told["prices"]} <= {"demo-base", "adapter"}
    assert {price["input"] for price in told["prices"]} <= {"0.100000000", "0.150000000"}
    (correction,) = told["corrections"]["rows"]
    assert (correction["request_id"], correction["cost"]) == ("req_acme_900", "-0.000001000")
    assert told["corrections"]["complete"]
    assert told["refused"] == [{"limit": "budget", "calls": 3}]
    assert told["proof"]["holds"]
    json.dumps(told)


def test_a_month_is_final_when_it_is_over_where_the_tenant_is(cast):
    assert not statements.of(cast.acme, costs.this_month(cast.acme)).final
    past = statements.of(cast.acme, "202001")
    assert past.final
    assert past.end == datetime(2020, 2, 1, tzinfo=ZoneInfo("Europe/Istanbul"))
    told = past.plain()
    assert told["totals"] == dict.fromkeys(ADDED, 0) | {"cost": "0.000000000"}
    assert (told["prices"], told["by_model"], told["refused"], told["proof"]) == ([], [], [], None)


def test_files_hold_the_same_totals(booked, client):
    client.force_login(booked.auditor)
    month = costs.this_month(booked.acme)
    spent = costs.month(booked.acme, month)["spent"]
    answer = client.get(reverse("statement_csv", args=["acme", month]))
    lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    for part in (*statements.PARTS, "total"):
        assert sum(nano(line["cost_usd"]) for line in lines if line["part"] == part) == spent
    told = client.get(reverse("statement_json", args=["acme", month])).json()
    assert nano(told["totals"]["cost"]) == spent
    page = client.get(reverse("statement", args=["acme"]), {"month": month})
    assert page.context["statement"].total["spent"] == spent
    for bad in ("202613", "x"):
        assert client.get(reverse("statement_json", args=["acme", bad])).status_code == 404


def test_the_command_prints_it(booked, capsys):
    month = costs.this_month(booked.acme)
    call_command("statement", "acme", month)
    assert json.loads(capsys.readouterr().out)["month"] == month
    call_command("statement", "acme", "--csv")
    assert capsys.readouterr().out.startswith("part,name")
    for wrong in (["nobody"], ["acme", "2026-11"]):
        with pytest.raises(CommandError):
            call_command("statement", *wrong)
