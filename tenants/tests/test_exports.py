"""Usage as files: what is written reads back, adds up to the ledger, and is a formula to no spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.test import AsyncRequestFactory
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from tenants import costs, keys, tenancy
from tenants.costs import exports
from tenants.models import NANO, UsageEvent, UsageMonth
from tenants.tests import usage
from tenants.views import take

pytestmark = pytest.mark.journey

MONEYS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")


@pytest.fixture
def booked(cast, redis_url):
    """Two months of Acme's calls, some of them corrected, and some of Globex."""
    prices = [usage.price(), usage.price("adapter", 150_000_000, 600_000_000)]
    for tenant, n in ((cast.acme, 250), (cast.globex, 20)):
        made = [keys.create(tenant, name)[0] for name in ("web", "=HYPERLINK(1)")]
        usage.book(usage.spread(tenant, made, prices, n, timezone.now(), 50))
        at = timezone.now() - timedelta(minutes=1)
        usage.book([usage.call(tenant, made[0], at, 900, cost=5_000, status="estimated")])
        usage.book([usage.call(tenant, made[0], at, 900, cost=4_999, output_tokens=1)])
    return cast


def read(pieces):
    text = pieces if isinstance(pieces, str) else "".join(pieces)
    return list(csv.DictReader(io.StringIO(text.removeprefix(exports.BOM), newline="")))


def months(tenant):
    return [(row.month, row) for row in UsageMonth.objects.filter(tenant=tenant)]


def nano(text):
    return int(Decimal(text) * NANO)


def test_a_cell_that_begins_inside_a_text_is_no_formula_either():
    assert exports.safe("x;=1+1") == "x;'=1+1"
    assert exports.safe("x; @SUM(A1)") == "x; '@SUM(A1)"
    assert exports.safe("=a;b - c") == "'=a;b - c"


def test_rows_of_a_key_or_of_a_month_are_all_there_after_the_time_zone_changed(booked):
    tenancy.set_time_zone(booked.acme, "Pacific/Kiritimati", booked.owner)
    for month, sums in months(booked.acme):
        lines = read(exports.usage(booked.acme, *costs.bounds(month)))
        assert sum(nano(line["cost_usd"]) for line in lines) == sums.cost_nano
        by_key = [read(exports.usage(booked.acme, *costs.bounds(month), key.pk)) for key in booked.acme.api_keys.all()]
        assert sum(nano(line["cost_usd"]) for lines in by_key for line in lines) == sums.cost_nano


def test_focus_adds_up_to_the_ledger_to_the_nano_dollar(booked):
    for month, sums in months(booked.acme):
        lines = read(exports.focus(booked.acme, *costs.bounds(month)))
        assert {sum(nano(line[money]) for line in lines) for money in MONEYS} == {sums.cost_nano}
        tokens = sums.input_tokens + sums.output_tokens
        assert sum(int(line["ConsumedQuantity"]) for line in lines) == tokens
        assert sum(Decimal(line["PricingQuantity"]) for line in lines) == Decimal(tokens) / 1_000_000
        assert sum(int(line["x_Calls"]) for line in lines) == sums.calls


def test_focus_periods_are_the_tenants_days_in_utc(booked):
    month, _ = months(booked.acme)[0]
    for line in read(exports.focus(booked.acme, *costs.bounds(month))):
        start, end = (datetime.fromisoformat(line[f"ChargePeriod{edge}"]) for edge in ("Start", "End"))
        assert end - start == timedelta(1)
        assert start.astimezone(UTC).hour == 21  # midnight in Istanbul
        opened, closed = (datetime.fromisoformat(line[f"BillingPeriod{edge}"]) for edge in ("Start", "End"))
        assert opened <= start < end <= closed
        assert set(json.loads(line["Tags"])) <= {"key_id", "key_name", "adapter_digest"}
        assert (line["ChargeCategory"], line["BillingCurrency"], line["SubAccountId"]) == ("Usage", "USD", "acme")


def test_rows_read_back_as_they_are_booked(booked):
    for month, sums in months(booked.acme):
        lines = read(exports.usage(booked.acme, *costs.bounds(month), bom=True))
        assert sum(nano(line["cost_usd"]) for line in lines) == sums.cost_nano
        assert sum(line["source"] == "gateway" for line in lines) == sums.calls
        rows = {(row.request_id, row.source): row for row in UsageEvent.objects.filter(tenant=booked.acme)}
        for line in lines:
            row = rows[line["request_id"], line["source"]]
            assert datetime.fromisoformat(line["occurred_at"]) == row.occurred_at
            assert (line["key_id"], line["model"], line["end_user"]) == (row.key_id, row.model, row.end_user)
            assert int(line["output_tokens"]) == row.output_tokens


def test_a_negative_amount_stays_a_number_and_a_negative_text_does_not():
    (line,) = read(exports.table(("a", "b", "c"), [[Decimal("-0.000000001"), -7, "-7"]]))
    assert line == {"a": "-0.000000001", "b": "-7", "c": "'-7"}


@given(st.text(max_size=40))
def test_no_text_is_a_formula_and_every_text_comes_back(text):
    text = text.replace("\0", "")
    (line,) = read(exports.table(("cell", "next"), [[text, 1]]))
    assert not line["cell"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert not re.search(r";\s*[=+\-@]", line["cell"])
    came = re.sub(r"(;\s*)'(?=[=+\-@])", r"\1", line["cell"])
    assert came in {text, f"'{text}", re.sub(r"(;\s*)'(?=[=+\-@])", r"\1", text)}
    assert line["next"] == "1"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_each_start_of_a_formula_is_defused(text):
    assert exports.safe(text) == f"'{text}"
    assert exports.safe(f"a{text}") == f"a{text}"


def test_lines_end_as_the_rfc_says():
    text = "".join(exports.table(("a",), [['x"y'], ["x,y"], ["x\ny"]], bom=True))
    assert text == '\ufeffa\r\n"x""y"\r\n"x,y"\r\n"x\ny"\r\n'


def test_files_are_of_the_tenant_and_what_was_chosen(booked, client):
    client.force_login(booked.auditor)
    month = costs.this_month(booked.acme)
    key = booked.acme.api_keys.get(name="web")
    answer = client.get(reverse("usage_csv", args=["acme"]), {"month": month, "key": key.pk, "bom": "0"})
    lines = read(b"".join(answer.streaming_content).decode())
    assert lines
    assert {line["key_id"] for line in lines} == {key.pk}
    day = str(costs.today(booked.acme))
    answer = client.get(reverse("usage_csv", args=["acme"]), {"month": month, "day": day})
    assert {line["day"] for line in read(b"".join(answer.streaming_content).decode())} <= {day}
    answer = client.get(reverse("usage_focus", args=["acme"]), {"month": month})
    lines = read(b"".join(answer.streaming_content).decode())
    assert "'=HYPERLINK(1)" not in {line["SkuId"] for line in lines}
    assert sum(nano(line["BilledCost"]) for line in lines) == costs.month(booked.acme, month)["spent"]


@pytest.mark.django_db(transaction=True)
async def test_a_file_is_whole_under_asgi(async_client, cast, redis_url):
    key, _ = await sync_to_async(keys.create)(cast.acme, "web")
    now = timezone.now() - timedelta(seconds=1)
    await sync_to_async(usage.book)([usage.call(cast.acme, key, now, n) for n in range(5)])
    await async_client.aforce_login(cast.auditor)
    for name in ("usage_csv", "usage_focus"):
        answer = await async_client.get(reverse(name, args=["acme"]))
        text = b"".join([piece async for piece in answer.streaming_content]).decode()
        assert len(read(text)) == {"usage_csv": 5, "usage_focus": 1}[name]


def test_a_file_is_sent_while_it_is_read_under_asgi(cast):
    pieces = (f"{n}\r\n" for n in range(3))
    answer = take.stream(AsyncRequestFactory().get("/"), pieces, "x.csv")
    assert isinstance(answer, StreamingHttpResponse)
    assert answer.is_async
    assert next(pieces) == "0\r\n"  # nothing was read ahead
