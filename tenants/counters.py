"""The control plane's connection to Redis, where counters, holds and the usage stream live (`metering`)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings

from tenants import metering

if TYPE_CHECKING:
    import redis


def connect() -> redis.Redis:
    """The pooled connection to settings.REDIS_URL; replies are text."""
    return _connect(settings.REDIS_URL)


@lru_cache(maxsize=4)
def _connect(url: str) -> redis.Redis:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=5, retry=Retry(NoBackoff(), 1))


def run(client: redis.Redis, script: str, packed: metering.Packed) -> Any:
    """One atomic step of `metering`; raises redis.RedisError."""
    keys, args = packed
    return client.eval(script, len(keys), *keys, *args)
