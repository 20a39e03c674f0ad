"""An epoch reaches Redis when its change has committed, and never goes back."""

import pytest
import redis
from django.db import transaction

from tenants import epochs, limits, metering


@pytest.fixture
def known(redis_url, cast):
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    yield lambda: client.hget(metering.EPOCHS, str(cast.acme.pk))
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
    limits.set_quota(cast.acme, cast.owner, requests_per_minute=5)
    settings.REDIS_URL = address
    assert known() is None
    epochs.assert_all()
    assert known() == "2"
