"""The engine of this installation, as the settings name it, opened with the key of its present start."""

from __future__ import annotations

from django.conf import settings

from inference import reconciliation
from inference.engines import client, key
from inference.models import Replica


def engine() -> client.Engine:
    return client.Engine(settings.ENGINE_URL, key_file=settings.ENGINE_KEY_FILE, spent=_spent)


def _spent(prompt: int, generation: int) -> None:
    url = settings.ENGINE_URL.rstrip("/")
    for replica in Replica.objects.filter(url__in=[url, f"{url}/"])[:1]:
        reconciliation.own(replica.name, prompt, generation)


def secret() -> str:
    """What opens it now; empty for an engine that needs nothing."""
    return key.read(settings.ENGINE_KEY_FILE)
