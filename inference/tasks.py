"""Periodic work of serving."""

from __future__ import annotations

import logging

from celery import shared_task

from attestation.signing import VerificationError
from inference import registry, serving
from inference.engines import client
from inference.models import Adapter

log = logging.getLogger(__name__)


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def reconcile_engine() -> int:
    """Loads what should be loaded and is not, as after an engine's restart; answers how many adapters.

    Each is verified again. One that fails is left out and said in the log; its callers get 503 meanwhile.
    """
    try:
        present = set(serving.engine().models())
    except client.EngineError as error:
        log.warning("The engine cannot be asked: %s", error)
        return 0
    loaded = 0
    wanted = Adapter.objects.filter(state=Adapter.State.LOADED)
    for adapter in wanted.select_related("tenant", "base", "statement"):
        if adapter.engine_name in present:
            continue
        try:
            loaded += registry.restore(adapter)
        except (VerificationError, client.EngineError) as error:
            log.error("%s is not served: %s", adapter, error)
    return loaded
