"""Why was I refused? A decision read back, and the smallest change that would have admitted the call."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings
from django.utils.crypto import salted_hmac


def secret() -> bytes:
    """What decisions are signed with: derived from SECRET_KEY, so every process of an installation has the same."""
    return _secret(settings.SECRET_KEY)


@lru_cache(maxsize=2)
def _secret(key: str) -> bytes:
    return salted_hmac("tenants.decisions", "v1", secret=key, algorithm="sha256").digest()
