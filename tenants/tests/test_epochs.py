"""An epoch reaches Redis when its change has committed, and never goes back."""

import orjson
import pytest
import redis
from django.db import transaction

from tenants import epochs, limits, metering
from tenants.models import AuditEntry


@pytest.fixture
def known(redis_url, cast):
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield lambda: client.get(metering.epoch_key(str(cast.acme.pk)))
    client.close()


@pytest.mark.django_db(transaction=True)
def test_redis_hears_of_a_change_after_the_commit_and_not_of_one_rolled_back(known, cast):
    with transaction.atomic():
        epochs.raise_(cast.acme)
        assert known() is None
    assert known() == "2"
    with transaction.atomic():
        epochs.raise_(cast.acme)
        transaction.set_rollback(True)
    assert known() == "2"


@pytest.mark.django_db(transaction=True)
def test_without_redis_the_change_stands_and_the_writer_makes_up_for_it(known, cast, settings):
    address, settings.REDIS_URL = settings.REDIS_URL, "unix:///nonexistent/redis.sock"
    limits.set_quota(cast.acme, 5, cast.owner)
    settings.REDIS_URL = address
    assert known() is None
    epochs.assert_all()
    assert known() == "2"


@pytest.mark.django_db
def test_limits_are_audited_with_what_they_were(cast):
    limits.set_quota(cast.acme, 5, cast.operator)
    limits.set_budget(cast.acme, 7, cast.operator)
    entries = AuditEntry.objects.order_by("pk").values_list("action", "before", "after", "actor__username")
    assert list(entries) == [("quota.set", 60, 5, "operator"), ("budget.set", 100_000_000_000, 7, "operator")]


def test_an_event_survives_its_hold():
    event = metering.Event("req_1", "t", "k", "2026-11-25T00:00:00.000Z", "202611", "estimated", "m", "m", cost_nano=5)
    _, args = metering.admit(event, metering.Limits(1, 1, 1))
    assert metering.held_event("5 " + str(args[-1], "utf-8")) == event  # type: ignore[arg-type]
    older = orjson.dumps(event).replace(b',"ttft_ms":0', b"")
    assert b"ttft_ms" not in older
    assert metering.read_event(older) == event
    wrong = orjson.dumps(event).replace(b'"cost_nano":5', b'"cost_nano":"5"').decode()
    for nonsense in ("", "null", "[]", "{}", '{"request_id": "x"}', wrong):
        with pytest.raises(metering.UnreadableEvent):
            metering.read_event(nonsense)
