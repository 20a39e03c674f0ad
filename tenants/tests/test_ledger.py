"""The ledger: one row an event, sealed; what it cost by day, by model, by month."""

import json
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from attestation import keyring, receipts
from attestation.signing import VerificationError
from tenants import costs, keys, ledger, metering, prices
from tenants.models import LedgerBatch, Price, UsageEvent

pytestmark = pytest.mark.django_db


@pytest.fixture
def event(cast):
    key, _ = keys.create(cast.acme, "x")
    whole = metering.Event(
        "req_0", str(cast.acme.pk), key.pk, "2026-11-25T10:20:30.456Z", "202611", "settled", "m", "m"
    )

    def make(number=0, **changes):
        changes = {
            "request_id": f"req_{number}",
            "cost_nano": 10 + number,
            "input_tokens": 3,
            "output_tokens": 2,
        } | changes
        return asdict(whole) | changes

    return make


def test_a_batch_is_written_once_whatever_comes_twice(event):
    batch = ledger.write([event(1), event(2), event(1)])
    assert batch
    assert batch.size == 2
    assert ledger.write([event(1), event(2)]) is None
    second = ledger.write([event(2), event(3)])
    assert second
    assert second.size == 1
    assert UsageEvent.objects.count() == 3
    assert ledger.write([]) is None


def test_every_row_of_a_batch_has_a_receipt_that_holds(event, cast):
    ledger.write([event(number) for number in range(5)])
    for number in range(5):
        receipt = json.loads(json.dumps(ledger.receipt(cast.acme, f"req_{number}")))
        row = receipts.verify(receipt, keyring.public_keys())["row"]
        assert (row["cost_nano"], row["occurred_at"]) == (10 + number, "2026-11-25T10:20:30.456Z")


@pytest.mark.parametrize("column", ["cost_nano", "output_tokens", "adapter_digest", "status", "occurred_at"])
def test_a_row_changed_in_the_database_has_no_receipt_that_holds(event, cast, column):
    ledger.write([event(1), event(2)])
    changed = {"cost_nano": 1, "output_tokens": 9, "adapter_digest": "0" * 64, "status": "blocked"}
    changed["occurred_at"] = datetime(2026, 11, 25, 10, 20, 30, tzinfo=UTC)
    UsageEvent.objects.filter(request_id="req_1").update(**{column: changed[column]})
    for request_id in ("req_1", "req_2"):
        with pytest.raises(VerificationError):
            receipts.verify(ledger.receipt(cast.acme, request_id), keyring.public_keys())


def test_a_stranger_gets_no_receipt(event, cast):
    ledger.write([event(1)])
    with pytest.raises(ledger.NoSuchRow):
        ledger.receipt(cast.globex, "req_1")


def test_a_batch_that_cannot_be_written_leaves_nothing(event):
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.write([event(1), event(2, status=None)])
    assert not UsageEvent.objects.exists()
    assert not LedgerBatch.objects.exists()


def test_costs_by_month_day_and_model(event, cast):
    ledger.write(
        [
            event(1, cost_nano=100),
            event(2, cost_nano=50, model="n", occurred_at="2026-11-01T00:00:00.000Z"),
            event(3, cost_nano=7, occurred_at="2026-10-31T23:59:59.999Z"),
            event(4, cost_nano=0, status="blocked", input_tokens=0, output_tokens=0),
        ]
    )
    month = costs.month(cast.acme, "202611")
    assert month == {"spent": 150, "calls": 3, "input_tokens": 6, "output_tokens": 4, "tokens": 10} | {
        "budget": 100_000_000_000
    }
    assert ledger.spent(str(cast.acme.pk), "202611") == 150
    assert ledger.spent(str(cast.acme.pk), "202610") == 7
    days = [(row["day"], row["spent"], row["calls"]) for row in costs.by_day(cast.acme, "202611")]
    assert days == [(date(2026, 11, 1), 50, 1), (date(2026, 11, 25), 100, 2)]
    assert [(row["model"], row["spent"]) for row in costs.by_model(cast.acme, "202611")] == [("m", 100), ("n", 50)]
    assert costs.month(cast.globex, "202611")["calls"] == 0
    assert costs.by_day(cast.acme, "202612") == []


@pytest.mark.parametrize(
    ("tokens", "per_mtok", "expected"),
    [((0, 0), (5, 5), 0), ((1, 0), (499_999, 0), 0), ((1, 0), (500_000, 0), 1), ((1, 1), (250_000, 250_000), 1)],
)
def test_a_cost_is_rounded_half_up_once(tokens, per_mtok, expected):
    assert prices.cost(*tokens, *per_mtok) == expected


def test_a_cost_is_exact_beyond_floats():
    assert prices.cost(10**9, 10**9, 10**12 + 1, 3) == 10**15 + 1000 + 3000


def test_the_price_in_force_is_the_newest_that_has_begun():
    now = datetime(2026, 11, 25, tzinfo=UTC)
    for nano, days in ((1, -10), (2, -1), (3, 1)):
        Price.objects.create(
            model="m", input_nano_per_mtok=nano, output_nano_per_mtok=nano, valid_from=now + timedelta(days)
        )
    assert prices.for_model("m", now).input_nano_per_mtok == 2
    assert prices.for_model("m", now - timedelta(5)).input_nano_per_mtok == 1
    with pytest.raises(prices.NoPrice, match="m"):
        prices.for_model("m", now - timedelta(20))
    assert prices.first_of(["none", "m"]).model == "m"
    with pytest.raises(prices.NoPrice, match="none"):
        prices.first_of(["none", "nor"])


@pytest.mark.parametrize(("nano_in", "nano_out"), [(-1, 0), (0, -1)])
def test_no_price_is_negative(nano_in, nano_out):
    now = datetime(2026, 11, 25, tzinfo=UTC)
    with pytest.raises(IntegrityError, match="no_negative_price"):
        Price.objects.create(model="m", input_nano_per_mtok=nano_in, output_nano_per_mtok=nano_out, valid_from=now)
