"""Versions of a price never overlap; what calls were billed by never changes; references bill nobody."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from tenants import prices
from tenants.models import NANO, AuditEntry, LedgerBatch, Price, Tenant, UsageDay, UsageEvent
from tenants.prices import pricebook

pytestmark = pytest.mark.django_db
BOTH: dict[str, Any] = {"input_nano_per_mtok": 100, "output_nano_per_mtok": 200}


@pytest.fixture
def now(db):
    return timezone.now()


def test_a_new_version_ends_the_open_one(cast, now):
    first = prices.set_("m", cast.operator, **BOTH, valid_from=now - timedelta(days=1))
    second = prices.set_("m", cast.operator, input_nano_per_mtok=1, output_nano_per_mtok=2)
    first.refresh_from_db()
    assert first.valid_until == second.valid_from
    assert prices.for_model("m") == second
    assert prices.for_model("m", now - timedelta(hours=1)) == first
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == [
        "price.create",
        "price.change",
        "price.create",
    ]


@pytest.mark.parametrize(("since", "until"), [(1, 3), (0, None), (2, 12), (5, 6), (9, None), (10, 11), (-1, 11)])
def test_overlapping_versions_name_the_other(cast, now, since, until):
    day = timedelta(days=1)
    other = prices.set_("m", cast.operator, **BOTH, valid_from=now + day, valid_until=now + 10 * day)
    last = prices.set_("m", cast.operator, **BOTH, valid_from=now + 10 * day)
    with pytest.raises(prices.Overlap, match="m has a price from") as error:
        prices.set_("m", cast.operator, **BOTH, valid_from=now + since * day, valid_until=until and now + until * day)
    assert error.value.other in {other, last}
    assert Price.objects.count() == 2
    assert prices.set_("n", cast.operator, **BOTH, valid_from=now + day)


def test_one_that_begins_later_stays_in_the_way(cast, now):
    prices.set_("m", cast.operator, **BOTH, valid_from=now + timedelta(days=1))
    with pytest.raises(prices.Overlap):
        prices.set_("m", cast.operator, **BOTH)
    assert prices.set_("m", cast.operator, **BOTH, valid_until=now + timedelta(days=1))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("input_nano_per_mtok", -1),
        ("output_nano_per_mtok", 10_000 * NANO + 1),
        ("input_nano_per_mtok", None),
        ("cached_nano_per_mtok", -5),
        ("batch_output_nano_per_mtok", 2**70),
        ("input_nano_per_mtok", 0.1),
        ("model", ""),
        ("kind", "gift"),
        ("valid_until", datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_negative_and_absurd_prices(cast, field, wrong):
    wanted = {"model": "m", "actor": cast.operator, **BOTH, field: wrong}
    with pytest.raises(prices.BadPrice) as error:
        prices.set_(**wanted)
    assert error.value.field == field
    assert not Price.objects.exists()


def test_a_version_in_force_does_not_change(cast, now):
    used = prices.set_("m", cast.operator, **BOTH)
    later = prices.set_("m", cast.operator, **BOTH, valid_from=now + timedelta(days=1))
    for verb in (lambda: prices.change(used, None, input_nano_per_mtok=1), lambda: prices.delete(used, None)):
        with pytest.raises(prices.InUse):
            verb()
    assert prices.change(later, cast.operator, input_nano_per_mtok=1).input_nano_per_mtok == 1
    with pytest.raises(prices.Overlap):
        prices.change(later, cast.operator, valid_from=now)
    prices.delete(later, cast.operator)
    assert Price.objects.get() == used


def book(tenant: Tenant, at: datetime, model: str = "m", price: Price | None = None) -> None:
    from attestation import receipts

    statement = receipts.seal("ledger", "req_1", [{"request_id": "req_1"}])
    batch = LedgerBatch.objects.create(root="0" * 64, size=1, statement=statement)
    common = {"tenant": tenant, "model": model, "served": model, "day": date(at.year, at.month, at.day)}
    UsageEvent.objects.create(**common, request_id="req_1", occurred_at=at, price=price, batch=batch, position=0)
    UsageDay.objects.create(**common, calls=1, price_id=price.pk if price else 0)


def test_backdating_behind_calls_is_refused(cast, now):
    adapters = prices.set_("adapter", cast.operator, **BOTH, valid_from=now - timedelta(days=30))
    book(cast.acme, now - timedelta(hours=2), "acme/a-v1", adapters)
    for model in ("adapter", "acme/a-v1"):
        with pytest.raises(prices.Backdated):
            prices.set_(model, cast.operator, **BOTH, valid_from=now - timedelta(hours=3))
    assert prices.set_("acme/a-v1", cast.operator, **BOTH, valid_from=now - timedelta(hours=1))
    assert prices.set_("free", cast.operator, **BOTH, valid_from=now - timedelta(days=9))


def test_a_reference_bills_nobody(cast, now):
    epoch = cast.acme.epoch
    prices.set_("claude", cast.operator, **BOTH, kind="reference", valid_from=now - timedelta(days=1))
    with pytest.raises(prices.NoPrice, match="claude"):
        prices.first_of(["claude"])
    cast.acme.refresh_from_db()
    assert cast.acme.epoch == epoch
    mine = prices.set_("m", cast.operator, **BOTH)
    assert prices.first_of(["claude", "m"]) == mine
    cast.acme.refresh_from_db()
    assert cast.acme.epoch > epoch


def test_an_ended_price_bills_no_more(cast, now):
    price = prices.set_("m", cast.operator, **BOTH, valid_from=now - timedelta(days=1))
    with pytest.raises(prices.BadPrice):
        prices.end(price, cast.operator, now - timedelta(hours=1))
    prices.end(price, cast.operator)
    with pytest.raises(prices.NoPrice):
        prices.for_model("m")
    assert prices.for_model("m", now - timedelta(hours=1)) == price


def test_when_prices_change_next(cast, now):
    day = timedelta(days=1)
    prices.set_("m", cast.operator, **BOTH, valid_from=now - day, valid_until=now + 3 * day)
    prices.set_("n", cast.operator, **BOTH, valid_from=now + 2 * day)
    prices.set_("r", cast.operator, **BOTH, valid_from=now + day, kind="reference")
    assert prices.next_change(["m", "n", "r"], now) == now + 2 * day
    assert prices.next_change(["m"], now) == now + 3 * day
    assert prices.next_change(["m"], now + 3 * day) is None


def test_a_gpu_hour_makes_a_price():
    made = prices.from_gpu("1.80", "5000", "400", "0.5")
    # $1.80 / 3600 s = $0.0005 a second; 2,500 tokens a second read, 200 written.
    assert made["input_nano_per_mtok"] == 200_000_000
    assert made["output_nano_per_mtok"] == 2_500_000_000
    assert made["basis"] == {
        "gpu_hour_nano": 1_800_000_000,
        "input_tokens_per_second": "5000",
        "output_tokens_per_second": "400",
        "utilisation": "0.5",
    }


def test_a_gpu_price_is_rounded_once_and_can_be_set(cast):
    made = prices.from_gpu("1", "3", "7")
    assert made["input_nano_per_mtok"] == 92_592_592_593  # 92,592,592,592.59...
    assert prices.set_("m", cast.operator, **made).kind == Price.Kind.SELF_HOSTED


@pytest.mark.parametrize("wrong", ["0", "-1", "NaN", "Infinity", "x", "1e9"])
def test_a_gpu_that_costs_or_does_nothing(wrong):
    for place in range(4):
        given = ["1", "1", "1", "1"]
        given[place] = wrong
        if place in {1, 2} and wrong == "1e9":
            continue  # a throughput may be that high
        with pytest.raises(prices.BadPrice):
            prices.from_gpu(*given)


def test_the_shipped_price_book_imports_twice_as_once(db, capsys):
    path = settings.ROOT / "data" / "prices.json"
    for said in ("9 new, 0 changed, 0 as", "0 new, 0 changed, 9 as"):
        call_command("import_prices", str(path))
        assert said in capsys.readouterr().out
    assert prices.for_model("demo-base").output_nano_per_mtok == 400_000_000
    reference = Price.objects.get(historical=True)
    assert (reference.input_nano_per_mtok, reference.output_nano_per_mtok) == (3 * NANO, 15 * NANO)
    prices.set_("demo-base", None, **BOTH)
    assert pricebook.load(path).same == 9


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"input": "-1"}, "0 to"),
        ({"input": "0.0000000001"}, "nine decimals"),
        ({"input": 0.1}, "in quotes"),
        ({"input": "abc"}, "in quotes"),
        ({"valid_from": "2026-01-01"}, "2026-01-01T00:00:00Z"),
        ({"valid_from": "2026-13-01T00:00:00Z"}, "2026-01-01T00:00:00Z"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_kept(db, tmp_path, line, said):
    good = {"model": "m", "input": "1", "output": "2", "valid_from": "2026-01-01T00:00:00Z"}
    (tmp_path / "p.json").write_text(json.dumps([good, good | {"model": "n"} | line]))
    with pytest.raises(CommandError, match="price 2") as error:
        call_command("import_prices", str(tmp_path / "p.json"))
    assert said in str(error.value)
    assert not Price.objects.exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "\udc80"])
def test_a_file_that_is_no_price_book(db, tmp_path, text):
    (tmp_path / "p.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CommandError):
        call_command("import_prices", str(tmp_path / "p.json"))
    with pytest.raises(CommandError):
        call_command("import_prices", str(tmp_path / "none.json"))
