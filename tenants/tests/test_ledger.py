"""The ledger: one row an event, sealed; its roll-ups in the same transaction; entries read for what they are."""

import json
from datetime import UTC, date, datetime

import orjson
import pytest
from django.db import DatabaseError, IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from attestation import canonical, keyring, log, receipts
from attestation.signing import VerificationError
from tenants import ledger, metering
from tenants.ledger import booking, entries, sums
from tenants.models import APIKey, LedgerBatch, LedgerHead, UsageDay, UsageEndUser, UsageEvent, UsageMonth
from tenants.notices import alerts

AT = 1_795_602_030_456_789  # us
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text('ıİşğ\x00\x07\x1f\x7f\u2028"\\/é😀\n')


@pytest.fixture
def event(cast):
    APIKey.objects.create(pk="key-of-acme", tenant=cast.acme, name="web")
    base = {"model": "şampiyon", "served": "m", "at_us": AT, "input_tokens": 3, "output_tokens": 2}
    base |= {"tenant": str(cast.acme.pk), "key": "key-of-acme", "day": "2026-11-25", "status": "settled"}

    def make(number=0, **facts):
        return metering.Event(**({"request_id": f"r{number}", "cost_nano": 10 + number} | base | facts))

    return make


def row_of(entry):
    assert entry.row is not None
    return entry.row


def totals(model, *keys):
    names = (*keys, "calls", "input_tokens", "cached_tokens", "output_tokens", "cost_nano")
    return sorted(model.objects.values_list(*names))


@pytest.mark.django_db
def test_a_batch_is_written_once_whatever_comes_twice(event):
    for batch, size in (([1, 2, 1], 2), ([1, 2], None), ([2, 3], 1), ([], None)):
        written = ledger.write([event(number) for number in batch])
        assert (written.batch and written.batch.size) == size
    assert UsageEvent.objects.count() == 3
    assert sums.differences() == []


@pytest.mark.django_db
def test_the_same_id_of_two_tenants_is_two_calls(event, cast):
    ledger.write([event(1), event(1, tenant=str(cast.globex.pk), key="")])
    assert UsageEvent.objects.count() == 2


@pytest.mark.django_db
def test_every_row_of_a_batch_has_a_receipt_that_holds(event, cast):
    ledger.write([event(1, end_user="ayşe \x07 😀", price=0, key=""), *(event(number) for number in range(2, 6))])
    for number in range(1, 6):
        receipt = json.loads(json.dumps(ledger.receipt(cast.acme, f"r{number}")))
        row = receipts.verify(receipt, keyring.public_keys())["row"]
        assert (row["cost_nano"], row["occurred_at"]) == (10 + number, "2026-11-25T10:20:30.456789Z")
        assert row["day"] == "2026-11-25"


@pytest.mark.django_db
@pytest.mark.parametrize("at_us", [AT, AT // 10**6 * 10**6])  # with and without a fraction
def test_a_row_reads_as_it_was_written(event, at_us):
    told = event(1, at_us=at_us, arm="champion", weight_bp=9_000, cached_tokens=1, ttft_ms=5, latency_ms=7)
    ledger.write([told])
    row = UsageEvent.objects.get()
    assert ledger.canonical(row) == entries.signed(row_of(entries.of(told)))
    assert (row.day, row.key_id, row.position) == (date(2026, 11, 25), "key-of-acme", 0)
    assert UsageEvent.objects.filter(occurred_at=datetime.fromtimestamp(at_us // 10**6, UTC)).exists() == (at_us != AT)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        {"cost_nano": 1},
        {"output_tokens": 9},
        {"status": "blocked"},
        {"end_user": "x"},
        {"source": "adjustment"},
        {"day": date(2026, 11, 24)},
        {"price_id": 7},
        {"key_id": None},
        {"occurred_at": datetime(2026, 11, 25, 10, 20, 30, tzinfo=UTC)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_row_changed_in_the_database_has_no_receipt_that_holds(event, cast, change):
    ledger.write([event(1), event(2)])
    UsageEvent.objects.filter(request_id="r1").update(**change)
    with pytest.raises(VerificationError):
        receipts.verify(ledger.receipt(cast.acme, "r2"), keyring.public_keys())


@pytest.mark.django_db
def test_which_engine_answered_is_signed_and_says_nothing_where_nobody_was_asked(event, cast):
    ledger.write([event(1, engine="engine-1", engine_version="0.32.0", load_epoch=3, base_digest="b" * 64), event(2)])
    asked, unasked = (
        receipts.verify(ledger.receipt(cast.acme, name), keyring.public_keys())["row"] for name in ("r1", "r2")
    )
    assert [asked[name] for name in entries.LATER] == ["b" * 64, "engine-1", "0.32.0", 3]
    assert asked.keys() - unasked.keys() == set(entries.LATER)  # so is a row of before these columns were there


@pytest.mark.django_db
def test_a_stranger_gets_no_receipt(event, cast):
    ledger.write([event(1)])
    with pytest.raises(ledger.NoSuchRow):
        ledger.receipt(cast.globex, "r1")


@pytest.mark.django_db
def test_a_batch_that_cannot_be_written_leaves_nothing(event, monkeypatch):
    def fail(*_):
        raise DatabaseError

    monkeypatch.setattr(alerts, "check", fail)
    with pytest.raises(DatabaseError):
        ledger.write([event(1), event(2)])
    for model in (UsageEvent, UsageDay, UsageMonth, UsageEndUser, LedgerBatch):
        assert not model.objects.exists()


@pytest.mark.django_db
def test_roll_ups_move_with_the_rows_and_alerts_hear_of_the_month(event, cast, monkeypatch):
    heard = []
    monkeypatch.setattr(alerts, "check", lambda spent: heard.append(dict(spent)))
    tenant = str(cast.acme.pk)
    ledger.write([event(1, cost_nano=100, end_user="ada", cached_tokens=1), event(2, cost_nano=50, model="n")])
    ledger.write([event(3, cost_nano=7, day="2026-10-31"), event(4, cost_nano=5, end_user="ada", status="blocked")])
    ledger.write([event(5, cost_nano=1, status="aborted", key=""), event(5, cost_nano=1, status="aborted", key="")])
    assert heard[0] == {(tenant, "202611"): 150}
    assert heard[1] == {(tenant, "202611"): 155, (tenant, "202610"): 7}
    assert totals(UsageMonth, "month") == [("202610", 1, 3, 0, 2, 7), ("202611", 4, 12, 1, 8, 156)]
    assert totals(UsageEndUser, "month", "end_user") == [("202611", "ada", 2, 6, 1, 4, 105)]
    assert totals(UsageDay, "day", "key_id", "model") == [
        (date(2026, 10, 31), "key-of-acme", "şampiyon", 1, 3, 0, 2, 7),
        (date(2026, 11, 25), "", "şampiyon", 1, 3, 0, 2, 1),
        (date(2026, 11, 25), "key-of-acme", "n", 1, 3, 0, 2, 50),
        (date(2026, 11, 25), "key-of-acme", "şampiyon", 2, 6, 1, 4, 105),
    ]
    assert sorted(UsageDay.objects.values_list("blocked", "aborted")) == [(0, 0), (0, 0), (0, 1), (1, 0)]
    assert sums.differences() == []


@pytest.mark.django_db
def test_a_thousand_rows_take_as_many_queries_as_one(event, django_assert_num_queries):
    ledger.write([event(0)])
    names = {f"u{n % 7}" for n in range(7)}
    batch = [event(n, end_user=f"u{n % 7}", model=f"m{n % 3}") for n in range(1, 1_001)]
    with django_assert_num_queries(20, exact=False):
        ledger.write(batch)
    assert set(UsageEndUser.objects.values_list("end_user", flat=True)) == names
    assert list(UsageEvent.objects.order_by("position").values_list("position", flat=True)[1:]) == list(range(1_000))


@pytest.mark.django_db
def test_the_head_stands_where_the_batch_ended(event):
    entry = entries.read("17-3", {"event": orjson.dumps(event(1)).decode(), "at": str(AT)})
    ledger.write([entry], ledger.head(), sequence=12)
    head = LedgerHead.objects.get()
    assert (head.position, head.sequence, head.unconfirmed) == ("17-3", 12, [])
    assert booking.known(["r1", "r2"])[0][:4] == ("r1", event().tenant, "gateway", "settled")


@pytest.mark.parametrize(
    ("told", "at"),
    [({"at": str(AT)}, AT), ({}, 7_000_000), ({"late": "1"}, 7_000_000)],
)
def test_an_entry_says_when_the_call_was_admitted(told, at):
    event = metering.Event("r", "t", "k", "2026-11-25", "settled", "m", "m", at_us=7_000_000)
    read = entries.read("5-0", {"event": orjson.dumps(event).decode()} | told)
    assert row_of(read)["occurred_at"] == entries.moment(at)
    assert read.late == ("late" in told)
    unknown = entries.read("5-0", {"event": orjson.dumps(event.ending("settled", at_us=0)).decode()})
    assert row_of(unknown)["occurred_at"] == entries.moment(5_000)


def test_an_entry_of_an_older_or_a_newer_gateway_is_read():
    event = orjson.loads(orjson.dumps(metering.Event("r", "t", "k", "2026-11-25", "settled", "m", "m")))
    del event["ttft_ms"]
    row = row_of(entries.read("1-0", {"event": orjson.dumps(event | {"colour": "red"}).decode()}))
    assert row["ttft_ms"] == 0
    assert "colour" not in row


FLAT = st.fixed_dictionaries(
    dict.fromkeys((*entries.SIZES, "source", "occurred_at", "day"), TEXTS)
    | {name: st.integers(-(2**53) + 1, 2**53 - 1) for name in (*entries.COUNTS, "cost_nano", "price")}
)


@given(FLAT)
def test_a_rows_bytes_are_those_of_rfc_8785(row):
    assert entries.leaf_bytes(row) == canonical.json_bytes(entries.signed(row))


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70))
def test_the_root_is_that_of_the_definition(leaves):
    def root(part):
        if len(part) < 2:
            return part[0]
        middle = 1 << ((len(part) - 1).bit_length() - 1)
        return log._node(root(part[:middle]), root(part[middle:]))

    if leaves:
        assert log.root(leaves) == root(leaves)


@pytest.mark.django_db
def test_what_the_table_refuses_is_an_error_of_django_on_every_database(event):
    """The writer tells by it what is an entry's fault from a database that is away."""
    row = row_of(entries.of(event(1)))
    with pytest.raises(DatabaseError), transaction.atomic():
        booking.insert([(row | {"source": None}, None)], 1)
    booking.insert([(row, None)], 1)
    with pytest.raises(IntegrityError), transaction.atomic():
        booking.insert([(row, None)], 1)
