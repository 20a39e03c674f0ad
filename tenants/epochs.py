"""A tenant's epoch: raised by every change that a gateway must see, compared by every admission.

The database holds the truth and is raised in the transaction of the change; Redis gets the number once that
has committed. If the process dies in between, the ledger writer asserts it within a second.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.db import transaction
from django.db.models import F

from tenants import counters, metering
from tenants.models import Tenant

log = logging.getLogger(__name__)


def raise_(tenant: Tenant) -> None:
    """Makes every gateway read `tenant` again before its next admission, once this transaction has committed."""
    with transaction.atomic():
        Tenant.objects.filter(pk=tenant.pk).update(epoch=F("epoch") + 1)
        tenant.refresh_from_db(fields=["epoch"])
        assertion = [(str(tenant.pk), tenant.epoch)]
        transaction.on_commit(lambda: _assert_soon(assertion))


def raise_all() -> None:
    """The same for every tenant: for what they share, such as prices and base models."""
    with transaction.atomic():
        Tenant.objects.update(epoch=F("epoch") + 1)
        assertions = [(str(pk), epoch) for pk, epoch in Tenant.objects.values_list("pk", "epoch")]
        transaction.on_commit(lambda: _assert_soon(assertions))


def assert_all() -> None:
    """Raises what is behind in Redis to the database's epochs; raises redis.RedisError."""
    known = counters.connect().hgetall(metering.EPOCHS)
    truth = {str(pk): epoch for pk, epoch in Tenant.objects.values_list("pk", "epoch")}
    publish((tenant, epoch) for tenant, epoch in truth.items() if int(known.get(tenant, 0)) < epoch)


def publish(pairs: Iterable[tuple[str, int]]) -> None:
    """Raises the epochs in Redis to at least these; never lowers one, so that a late writer does no harm."""
    if pairs := list(pairs):
        counters.run(counters.connect(), metering.RAISE_EPOCHS, metering.raise_epochs(pairs))


def _assert_soon(pairs: list[tuple[str, int]]) -> None:
    import redis

    try:
        publish(pairs)
    except redis.RedisError:
        log.warning("Redis does not answer; the ledger writer will raise %d epochs.", len(pairs))
