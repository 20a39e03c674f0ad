"""The ledger by REST: pages that follow one another, only one's own rows, exact dollars."""

from datetime import UTC, datetime, timedelta

import pytest

from tenants import keys
from tenants.models import UsageEvent
from tenants.tests.api_client import ACME, by_key, client, is_problem
from tenants.tests.usage import book, call

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
USAGE = f"{ACME}usage/"


@pytest.fixture
def booked(cast):
    """Twelve calls of Acme, two at each instant, by two keys; one of Globex."""
    ours = [keys.create(cast.acme, name)[0] for name in "ab"]
    theirs = keys.create(cast.globex, "g")[0]
    made = [
        call(cast.acme, ours[n % 2], NOON - timedelta(hours=4 * (n // 2)), n, cost=n + 1, model=f"m{n % 3}")
        for n in range(12)
    ]
    book([*made, call(cast.globex, theirs, NOON, 99)])
    return ours


def follow(caller, address):
    """Each page's request ids."""
    while address:
        body = caller.get(address).json()
        yield [row["request_id"] for row in body["results"]]
        address = body["next"]


def test_every_row_once_newest_first_while_others_arrive(cast, booked):
    seen = []
    for number, found in enumerate(follow(client(cast.auditor), f"{USAGE}?limit=5"), 100):
        seen += found
        book([call(cast.acme, booked[0], NOON + timedelta(seconds=number), number)])
    assert sorted(seen) == sorted(f"req_acme_{n}" for n in range(12))
    at = dict(UsageEvent.objects.values_list("request_id", "occurred_at"))
    assert [at[name] for name in seen] == sorted((at[name] for name in seen), reverse=True)


def test_a_row_is_exact_and_keeps_its_inside_to_itself(cast, booked):
    row = by_key(cast.acme, "usage").get(USAGE).json()["results"][-1]
    assert row["cost"] in {"0.000000011", "0.000000012"}
    assert not {"id", "tenant", "batch", "cost_nano", "corrects"} & set(row)


def test_days_keys_and_models_leave_only_some(cast, booked):
    caller = client(cast.auditor)

    def found(query):
        return sorted(name for names in follow(caller, f"{USAGE}?limit=2&{query}") for name in names)

    assert found(f"key={booked[0].pk}") == sorted(f"req_acme_{n}" for n in range(0, 12, 2))
    assert found("model=m1") == sorted(f"req_acme_{n}" for n in (1, 4, 7, 10))
    # Istanbul is three hours ahead: noon, 8, 4 and 0 UTC are the 20th there, the evening before is the 19th.
    assert found("day=2026-11-20") == sorted(f"req_acme_{n}" for n in range(8))
    assert found(f"day=2026-11-19&key={booked[1].pk}") == ["req_acme_11", "req_acme_9"]
    assert found("day=2026-11-21") == found("day=9999-12-31") == found("model=nope") == []
    theirs = cast.globex.api_keys.get()
    assert found(f"key={theirs.pk}") == []


@pytest.mark.parametrize("query", ["day=yesterday", "day=2026-13-01", "key=" + "x" * 17, "model=%00"])
def test_a_filter_that_is_none(cast, query):
    is_problem(client(cast.auditor).get(f"{USAGE}?{query}"), 400)


def test_a_page_takes_few_queries_however_many_rows(cast, booked, django_assert_max_num_queries):
    caller = client(cast.auditor)
    with django_assert_max_num_queries(6):
        caller.get(f"{USAGE}?limit=12&key={booked[0].pk}")


def test_a_receipt_is_its_tenants(cast, booked):
    assert client(cast.auditor).get(f"{ACME}receipts/req_acme_3/").status_code == 200
    is_problem(client(cast.auditor).get(f"{ACME}receipts/req_globex_99/"), 404)
