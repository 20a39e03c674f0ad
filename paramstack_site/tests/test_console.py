"""What templates say: money, shares and times per language, one icon and word for a status; figures; operator pages."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone, translation

from paramstack_site import words
from paramstack_site.templatetags import console
from tenants import traffic
from tenants.costs import charts as money_charts
from tenants.traffic import charts as traffic_charts
from training import charts

CASES = [
    (1_284_600_000_000, "$1.284,60", "$1,284.60"),
    (0, "$0,00", "$0.00"),
    (123_456, "$0,000123", "$0.000123"),
    (500_000_000, "$0,50", "$0.50"),
    (1, "$0,000000001", "$0.000000001"),
    (-2_500_000_000, "−$2,50", "−$2.50"),
    (999_999_999, "$1,00", "$1.00"),
    (1_005_000_000, "$1,01", "$1.01"),
]


@pytest.mark.parametrize(("nano", "turkish", "english"), CASES)
def test_money_is_read_as_the_language_writes_it(nano, turkish, english):
    with translation.override("tr"):
        assert console.money(nano) == turkish
    with translation.override("en"):
        assert console.money(nano) == english


def test_the_ledger_shows_every_nano_dollar():
    with translation.override("tr"):
        assert console.money_exact(1_000_000_001) == "$1,000000001"


def test_a_share_has_its_sign_where_the_language_puts_it():
    with translation.override("tr"):
        assert console.percent(0.124) == "%12,4"
        assert console.percent(-0.124) == "−%12,4"
        assert console.basis(1_000) == "%10"
        assert console.basis(25) == "%0,25"
    with translation.override("en"):
        assert console.percent(0.124) == "12.4%"


def test_what_is_missing_is_a_dash_and_never_a_zero():
    for value in (None, "", float("nan")):
        assert console.decimal(value) == "–"
    assert console.percent(None) == "–"
    assert console.duration("") == "–"
    assert console.when(None) == "–"


def test_a_status_has_one_icon_and_an_unknown_one_says_so():
    with translation.override("tr"):
        assert "#i-loader-circle" in console.status("running")
        assert "Çalışıyor" in console.status("running")
        assert "Kanarya %10" in console.status("running", "Kanarya %10")
        assert "Bilinmiyor" in console.status("anything else")


def test_a_programs_progress_is_read_as_words():
    assert console.said('{"stage": "train", "done": 70, "total": 90, "loss": 0.111079}') == "train 70/90 loss=0.1111"
    assert console.said("Traceback") == "Traceback"


def test_a_status_word_is_escaped():
    assert "<script>" not in console.status("running", "<script>")


def test_times_are_near_or_dated():
    now = timezone.now()
    with translation.override("tr"):
        assert console.ago(now - timedelta(seconds=38)) == "38 sn önce"
        assert console.ago(now - timedelta(hours=3, minutes=14)) == "3 sa 14 dk önce"
        assert "." in console.when(now)
        assert ", " in console.when(now - timedelta(days=3))


def test_a_training_curve_is_a_figure_that_plotly_accepts():
    from plotly import graph_objects

    rows = [("train", step, {"loss": 0.7 - step / 10_000}) for step in range(2_500)]
    rows += [("heldout", 100, {"loss": 0.65})]
    loss, margin, _accuracy = charts.curves(rows, 2_500, ("eğitim", "ayrılmış"))
    graph_objects.Figure(data=untoken(loss["figure"]["data"]), layout=untoken(loss["figure"]["layout"]))
    train = loss["figure"]["data"][0]
    assert len(train["x"]) <= charts.MAX_POINTS
    assert train["x"][-1] == 2_499
    assert loss["now"] == 0.65
    assert margin["now"] is None


def test_a_day_without_calls_is_a_zero_and_not_a_gap():
    from plotly import graph_objects

    rows = [{"day": date(2026, 11, 2), "spent": 2_500_000_000}]
    figure = money_charts.days(rows, date(2026, 11, 1), date(2026, 11, 3), "harcanan")
    graph_objects.Figure(data=untoken(figure["data"]), layout=untoken(figure["layout"]))
    assert figure["data"][0]["y"] == [0, 2.5, 0]


def test_figures_of_traffic_have_a_value_or_a_gap_for_each_bar():
    from plotly import graph_objects

    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    seen = traffic.Times(2, 30, 90, 99)
    bars = [traffic.Bar(at, settled=2, blocked=1, latency=seen), traffic.Bar(at + timedelta(minutes=1))]
    words = {name: name for name in ("settled", "blocked", "broken", "refused", "p50", "p95", "first")}
    calls, times = traffic_charts.calls(bars, words, UTC), traffic_charts.times(bars, words, UTC)
    for figure in (calls, times):
        graph_objects.Figure(data=untoken(figure["data"]), layout=untoken(figure["layout"]))
    assert {trace["name"]: trace["y"] for trace in calls["data"]} == {"settled": [2, 0], "blocked": [1, 0]}
    assert {trace["name"]: trace["y"] for trace in times["data"]} == {"p95": [90, None], "p50": [30, None]}


def untoken(value):
    """The figure with colours in place of token names, which the browser resolves."""
    if isinstance(value, dict):
        return {key: untoken(each) for key, each in value.items()}
    if isinstance(value, list):
        return [untoken(each) for each in value]
    return "#000" if isinstance(value, str) and value.startswith("--") else value


def test_the_operator_pages_open_for_operators_only(client, cast):
    client.force_login(cast.owner)
    assert client.get(reverse("admin:index")).status_code == 302
    client.force_login(cast.operator)
    for name in ("tenant", "member", "apikey", "quota", "budget", "price", "auditentry", "user"):
        assert client.get(reverse(f"admin:tenants_{name}_changelist")).status_code == 200, name
    assert client.get(reverse("admin:inference_basemodel_add")).status_code == 200
    assert client.get(reverse("admin:training_promptdataset_changelist")).status_code == 200
    assert client.get(reverse("admin:tenants_apikey_add")).status_code == 403


def test_a_quota_changed_by_an_operator_is_recorded_and_raises_the_epoch(client, cast):
    client.force_login(cast.operator)
    before = cast.acme.epoch
    address = reverse("admin:tenants_quota_change", args=[cast.acme.quotas.get().pk])
    answer = client.post(address, {"tenant": cast.acme.pk, "requests_per_minute": 90})
    assert answer.status_code == 302
    cast.acme.refresh_from_db()
    assert cast.acme.epoch > before
    assert cast.acme.audit.get().action == "quota.set"


def test_a_member_removed_on_the_tenants_own_page_is_recorded(client, cast):
    client.force_login(cast.operator)
    member = cast.acme.members.get(user=cast.auditor)
    address = reverse("admin:tenants_member_delete", args=[member.pk])
    assert client.post(address, {"post": "yes"}).status_code == 302
    assert cast.acme.audit.get().action == "member.delete"


def test_every_icon_that_is_used_is_in_the_sprite_and_no_other(settings):
    templates = settings.ROOT / "templates"
    there = set(re.findall(r'id="i-([a-z0-9-]+)"', (templates / "_icons.html").read_text()))
    used = {symbol for symbol, _classes, _word in words.STATUS.values()}
    for path in [*templates.rglob("*.html"), settings.ROOT / "paramstack_site" / "overview.py"]:
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'{% icon "([a-z0-9-]+)"', text)) | set(re.findall(r'symbol="([a-z0-9-]+)"', text))
        used |= {name for name in there if f'"{name}"' in text}
    assert used == there
