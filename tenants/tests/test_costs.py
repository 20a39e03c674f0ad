"""What calls cost: every sum equals the rows, the forecast covers, the saving is exact, a page stays small."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tenants import costs, keys
from tenants.costs import charts, forecasts, rows, savings
from tenants.models import NANO, APIKey, Price, UsageEvent, UsageMonth
from tenants.tests import usage

pytestmark = pytest.mark.journey

SUMMED = ("input_tokens", "cached_tokens", "output_tokens")
PAGES = ("usage", "usage_rows", "statement", "backtest")


@pytest.fixture
def booked(cast, redis_url):
    """400 calls of Acme and 50 of Globex in the eight weeks before now, booked by the ledger."""
    prices = [usage.price(), usage.price("adapter", 150_000_000, 600_000_000)]
    for tenant, n in ((cast.acme, 400), (cast.globex, 50)):
        made = [keys.create(tenant, name)[0] for name in ("web", "mobil", "rapor")]
        usage.book(usage.spread(tenant, made, prices, n, timezone.now(), 56))
    return cast


def brute(tenant, month, name):
    """The rows added up one by one, by a column."""
    sums: dict[object, Counter] = {}
    first, next_ = costs.bounds(month)
    for row in UsageEvent.objects.filter(tenant=tenant, day__gte=first, day__lt=next_):
        into = sums.setdefault(getattr(row, name), Counter())
        into.update({"spent": row.cost_nano, "calls": row.source == "gateway"})
        into.update({column: getattr(row, column) for column in SUMMED})
    return {value: dict(counted) for value, counted in sums.items()}


def only_sums(row):
    return {name: row[name] for name in costs.NOTHING}


def months_of(tenant):
    return sorted({f"{day:%Y%m}" for day in UsageEvent.objects.filter(tenant=tenant).values_list("day", flat=True)})


@pytest.mark.parametrize(("by", "column"), [("day", "day"), ("key", "key_id"), ("price", "price_id")])
def test_every_break_down_equals_the_rows(booked, by, column):
    for month in months_of(booked.acme):
        found = {row[column]: only_sums(row) for row in getattr(costs, f"by_{by}")(booked.acme, month)}
        assert found == brute(booked.acme, month, column)


def test_models_adapters_and_end_users_add_up_to_the_month(booked):
    for month in months_of(booked.acme):
        whole = only_sums(costs.month(booked.acme, month))
        assert whole["spent"] == sum(row["spent"] for row in brute(booked.acme, month, "id").values())
        for by in ("model", "adapter", "end_user"):
            found = getattr(costs, f"by_{by}")(booked.acme, month)
            assert {name: sum(row[name] for row in found) for name in whole} == whole
            assert [row["spent"] for row in found[:-1]] == sorted((r["spent"] for r in found[:-1]), reverse=True)


def test_end_users_beyond_the_dearest_are_one_line(booked):
    month = max(months_of(booked.acme), key=lambda month: costs.month(booked.acme, month)["calls"])
    found = costs.by_end_user(booked.acme, month, most=5)
    truth = brute(booked.acme, month, "end_user")
    assert len(found) == 6
    assert found[-1]["end_user"] == ""
    for row in found[:5]:
        assert only_sums(row) == truth[row["end_user"]]
    named = sorted((sums["spent"] for user, sums in truth.items() if user), reverse=True)
    assert [row["spent"] for row in found[:5]] == named[:5]


def test_another_tenant_is_in_no_sum(booked):
    month = months_of(booked.globex)[-1]
    assert {row["key_id"] for row in costs.by_key(booked.globex, month)} <= set(
        APIKey.objects.filter(tenant=booked.globex).values_list("pk", flat=True)
    )
    across = {row["tenant"].slug: row["spent"] for row in costs.by_tenant(month)}
    assert across["globex"] == costs.month(booked.globex, month)["spent"]
    assert across["acme"] == costs.month(booked.acme, month)["spent"]


def test_a_month_ends_where_the_tenant_is(cast):
    cast.acme.time_zone = "Pacific/Auckland"
    assert costs.today(cast.acme, datetime(2026, 10, 31, 12, 0, tzinfo=UTC)) == date(2026, 11, 1)
    start, end = costs.instants(cast.acme, *costs.bounds("202611"))
    assert start.astimezone(UTC) == datetime(2026, 10, 31, 11, 0, tzinfo=UTC)
    assert (end - start) == timedelta(30)


@pytest.mark.parametrize("text", ["", "2026-11", "202613", "202600", "١٢٣٤٥٦", "999911", "000101", "20261"])
def test_what_is_no_month_is_said_to_be_none(text):
    with pytest.raises(costs.NoSuchMonth, match="YYYYMM"):
        costs.bounds(text)


def test_a_month_without_rows_or_prices_is_zero_and_has_no_saving(cast):
    assert costs.month(cast.acme, "202001")["spent"] == 0
    assert costs.by_model(cast.acme, "202001") == costs.by_end_user(cast.acme, "202001") == []
    assert costs.saving(cast.acme, "202001") is None
    assert costs.forecast(cast.acme) is None


# The forecast


def rows_of(spent, first=date(2026, 11, 1)):
    return [{"day": first + timedelta(n), "spent": nano} for n, nano in enumerate(spent)]


def foreseen(rows, now) -> forecasts.Forecast:
    """The forecast that these days allow."""
    ahead = forecasts.of_month(rows, now)
    assert ahead is not None
    return ahead


def test_fewer_than_three_whole_days_are_too_early():
    noon = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
    assert forecasts.of_month(rows_of([5, 5, 5]), noon) is None
    assert forecasts.of_month([], noon) is None
    assert foreseen(rows_of([5, 5, 5, 5]), noon + timedelta(1)).seen == 3


def test_equal_days_are_forecast_exactly():
    midnight = datetime(2026, 11, 11, tzinfo=UTC)
    ahead = foreseen(rows_of([100] * 10), midnight)
    assert (ahead.end.low, ahead.end.expected, ahead.end.high) == (3_000, 3_000, 3_000)
    assert ahead.spent == 1_000
    assert [each.day.day for each in ahead.path] == list(range(11, 31))
    assert ahead.reaches(2_000) == date(2026, 11, 21)
    assert ahead.reaches(3_000) is None
    assert (ahead.verdict(2_999), ahead.verdict(3_000)) == ("over", "within")


def test_weekends_count_as_weekends():
    """Four weeks of 100 on working days and 10 on others: what is left of the month has its own number of each."""
    first = date(2026, 10, 26)
    spent = [10 if (first + timedelta(n)).weekday() >= 5 else 100 for n in range(24)]
    ahead = foreseen(rows_of(spent, first), datetime(2026, 11, 19, tzinfo=UTC))
    left = sum(10 if date(2026, 11, n).weekday() >= 5 else 100 for n in range(19, 31))
    assert ahead.kinds == 2
    assert ahead.end.expected == ahead.spent + left
    assert ahead.end.low == ahead.end.high == ahead.end.expected


def test_a_day_without_calls_is_a_zero_and_the_interval_widens():
    gap = [row for row in rows_of([100] * 10) if row["day"].day not in (4, 6)]
    ahead = foreseen(gap, datetime(2026, 11, 11, tzinfo=UTC))
    assert ahead.seen == 10
    assert ahead.end.expected == 800 + 20 * 80
    assert ahead.spent <= ahead.end.low < ahead.end.expected < ahead.end.high


def test_the_interval_covers_about_four_times_in_five():
    rng, held, most = random.Random(11), 0, 600
    for _ in range(most):
        month = [int(rng.lognormvariate(17, 0.4)) for _ in range(30)]
        ahead = foreseen(rows_of(month[:12]), datetime(2026, 11, 13, tzinfo=UTC))
        held += ahead.end.low <= sum(month) <= ahead.end.high
    assert 0.74 <= held / most <= 0.86


# The saving


def test_the_saving_is_exact_to_the_nano_dollar():
    reference = Price(
        model="api", input_nano_per_mtok=3 * NANO, output_nano_per_mtok=15 * NANO, cached_nano_per_mtok=NANO // 10
    )
    row = {"spent": 1_000, "input_tokens": 1_000_001, "cached_tokens": 1_000_000, "output_tokens": 1}
    found = savings.of(row, reference)
    assert found.api == 3_000 + 100_000_000 + 15_000
    assert found.saved == found.api - 1_000
    assert found.share == pytest.approx(found.saved / found.api)
    reference.cached_nano_per_mtok = None
    assert savings.of(row, reference).api == 1_000_001 * 3_000 + 15_000


def test_a_dear_price_or_no_tokens_is_said_plainly():
    cheap = Price(model="api", input_nano_per_mtok=0, output_nano_per_mtok=0)
    assert savings.of({"spent": 5, **dict.fromkeys(SUMMED, 0)}, cheap).share is None
    cheap.output_nano_per_mtok = 1_000_000
    assert savings.of({"spent": 5, **dict.fromkeys(SUMMED, 0), "output_tokens": 1}, cheap).saved == -4


def test_the_cheapest_price_on_offer_is_compared_first(db):
    reference = {"kind": Price.Kind.REFERENCE}
    usage.price("dear", 10 * NANO, 50 * NANO, **reference)
    usage.price("gone", 1, 1, valid_until=usage.START + timedelta(1), **reference)
    usage.price("old", 1, 1, historical=True, **reference)
    usage.price("cheap", NANO, 5 * NANO, **reference)
    usage.price("ours", 1, 1)
    assert [price.model for price in savings.references()] == ["cheap", "dear", "gone", "old"]


def test_the_margin_is_revenue_less_gpu_time():
    basis = {
        "gpu_hour_nano": 3_600 * NANO,
        "input_tokens_per_second": "100",
        "output_tokens_per_second": "10",
        "utilisation": "0.5",
    }
    price = Price(pk=4, model="adapter", kind="self_hosted", basis=basis)
    row = {"price_id": 4, "spent": 50 * NANO, "input_tokens": 1_200, "cached_tokens": 200, "output_tokens": 20}
    (margin,) = savings.margins([row, row | {"price_id": 9}], {4: price})
    assert margin.seconds == (10 + 2) * 2
    assert margin.cost == 24 * NANO
    assert margin.profit == 26 * NANO
    price.basis = {"gpu_hour_nano": 1}
    assert savings.margins([row], {4: price}) == []


# Charts


def test_what_is_left_falls_from_the_budget_to_the_forecast():
    rows_ = costs.running(rows_of([NANO] * 10), date(2026, 11, 1), date(2026, 11, 10), 40 * NANO)
    assert [row["left"] for row in rows_[:2]] == [39 * NANO, 38 * NANO]
    ahead = foreseen(rows_of([NANO] * 10), datetime(2026, 11, 11, tzinfo=UTC))
    words = dict.fromkeys(("left", "spent", "forecast", "even"), "x")
    figure = charts.burn_down(rows_, date(2026, 11, 30), 40 * NANO, ahead, words)
    even, _low, _high, expected, seen = figure["data"]
    assert (seen["y"][0], seen["y"][-1]) == (40, 30)
    assert (even["y"], expected["y"][0], expected["y"][-1]) == ([40, 0], 30, 10)
    assert expected["x"][-1] == "2026-11-30"
    spending = charts.burn_down(rows_, date(2026, 11, 30), 0, None, words)
    assert spending["data"][0]["y"][-1] == 10


# Rows, page by page


def test_pages_hold_every_row_once_newest_first(booked):
    for month in months_of(booked.acme):
        first, next_ = costs.bounds(month)
        seen, after = [], ""
        while True:
            page = rows.page(booked.acme, first, next_, after=after, size=17)
            seen += [row.pk for row, _ in page.rows]
            if not (after := page.after):
                break
        truth = booked.acme.usage.filter(day__gte=first, day__lt=next_, source="gateway")
        assert seen == list(truth.values_list("pk", flat=True))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_of_one_key_look_back_just_far_enough(booked, size):
    first, next_ = date(2026, 1, 1), date(2999, 1, 1)
    for key in booked.acme.api_keys.all():
        seen, after = [], ""
        while True:
            page = rows.page(booked.acme, first, next_, key.pk, after, size)
            seen += [row.pk for row, _ in page.rows]
            if not (after := page.after):
                break
        assert seen == list(booked.acme.usage.filter(key=key).values_list("pk", flat=True))


def test_a_correction_stands_under_its_row(cast, redis_url):
    key, _ = keys.create(cast.acme, "web")
    at = timezone.now() - timedelta(minutes=2)
    usage.book([usage.call(cast.acme, key, at, cost=1_000, status="estimated", reason="gateway_lost")])
    usage.book([usage.call(cast.acme, key, at, cost=1_700, output_tokens=9)])
    today = costs.today(cast.acme, at)
    ((row, corrections),) = rows.page(cast.acme, today, today + timedelta(1)).rows
    assert row.status == "estimated"
    assert [each.cost_nano for each in corrections] == [700]
    assert costs.month(cast.acme, f"{today:%Y%m}")["spent"] == 1_700


@pytest.mark.parametrize("text", ["x", "1", "-", "1-x", "1" * 30 + "-1", "999999999999999999-1", "١-١"])
def test_a_cursor_that_no_page_gave_is_refused(text):
    with pytest.raises(rows.BadCursor):
        rows.read_cursor(text)


# Pages


@pytest.mark.parametrize("by", ["model", "adapter", "key", "end_user", "gpu", "nonsense"])
def test_the_cost_page_shows_what_was_spent(booked, client, by):
    usage.price("api", 3 * NANO, 15 * NANO, kind=Price.Kind.REFERENCE)
    hosted = {"gpu_hour_nano": NANO, "input_tokens_per_second": "9", "output_tokens_per_second": "9"}
    usage.price("gpu", 1, 1, kind=Price.Kind.SELF_HOSTED, basis=hosted)
    client.force_login(booked.auditor)
    for month in months_of(booked.acme):
        answer = client.get(reverse("usage", args=["acme"]), {"by": by, "month": month})
        assert answer.status_code == 200
        assert answer.context["month"]["spent"] == costs.month(booked.acme, month)["spent"]
        assert answer.context["saving"].paid == answer.context["month"]["spent"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_costs_at_most_twelve_queries_whatever_it_holds(booked, client, name):
    client.force_login(booked.owner)
    address = reverse(name, args=["acme"])
    key = booked.acme.api_keys.first()
    for query in ("", "?by=end_user", f"?key={key.pk}", "?days=30&requests_per_minute=5"):
        with CaptureQueriesContext(connection) as told:
            assert client.get(address + query).status_code == 200
        assert len(told) <= 12, "\n".join(each["sql"] for each in told)


def test_pages_of_cost_are_closed_to_strangers_and_the_view_across_tenants_to_members(booked, client):
    addresses = [reverse(name, args=["acme"]) for name in (*PAGES, "usage_csv", "usage_focus", "usage_tenants")]
    client.force_login(booked.outsider)
    assert {client.get(address).status_code for address in addresses} == {404}
    client.force_login(booked.owner)
    assert client.get(reverse("usage_tenants", args=["acme"])).status_code == 404
    client.force_login(booked.operator)
    answer = client.get(reverse("usage_tenants", args=["acme"]))
    assert {row["tenant"].slug for row in answer.context["lines"]} <= {"acme", "globex"}
    assert answer.status_code == 200


def test_odd_addresses_answer_with_a_page(booked, client):
    client.force_login(booked.owner)
    for query in ("?month=nope", "?month=202613", "?month=201001", "?day=2026-99-99", "?key=x&after=x", "?after=1-1"):
        for name in PAGES:
            assert client.get(reverse(name, args=["acme"]) + query).status_code == 200


def test_a_month_older_than_the_picker_reaches_has_its_figures(cast, client, redis_url):
    for number in range(1, 15):
        month = f"{2024 + number // 13}{(number - 1) % 12 + 1:02d}"
        UsageMonth.objects.create(tenant=cast.acme, month=month, cost_nano=number * NANO)
    client.force_login(cast.owner)
    page = client.get(reverse("usage", args=["acme"]) + "?month=202401")
    assert page.context["month"]["spent"] == NANO


def test_rows_are_filtered_by_the_day_where_the_tenant_is(cast, client, redis_url):
    key, _ = keys.create(cast.acme, "web")
    zone = ZoneInfo(cast.acme.time_zone)
    midnight = datetime(2026, 11, 20, tzinfo=zone)
    usage.book(
        [usage.call(cast.acme, key, midnight - timedelta(seconds=1), 1), usage.call(cast.acme, key, midnight, 2)]
    )
    client.force_login(cast.owner)
    answer = client.get(reverse("usage_rows", args=["acme"]), {"month": "202611", "day": "2026-11-20"})
    assert [row.request_id for row, _ in answer.context["rows"]] == ["req_acme_2"]
