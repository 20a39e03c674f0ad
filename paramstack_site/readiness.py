"""Whether each program of the starting stack does its work: asked from outside, the way its users would."""

import http.client
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.db import DatabaseError

from inference import replicas
from inference.models import Replica
from paramstack_site import programs
from tenants import ledger

Check = Callable[[], bool]
PATIENCE = 2.0  # seconds for one question


def checks() -> dict[str, Check]:
    """One question per name; it answers True when the program works, and never raises."""
    agent = {"engine_agent": agent_looks} if settings.ENGINE_EMBEDDED else {}
    local = f"http://{settings.HOST}:{settings.PORT}"
    return {
        "redis": ping,
        "web": lambda: status(f"{local}/healthz") == 200,
        "gateway": lambda: status(f"{local}/v1/models") == 401,
        "engine": engine_serves,
        "worker-default": lambda: answers("default"),
        "worker-gpu": lambda: answers("gpu"),
        "ledger_writer": writer_reads,
        **agent,
    }


def status(url: str) -> int | None:
    """The status of GET `url`, or None when nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def engine_serves() -> bool:
    """Whether the engine answers, and serves its base model where there is one to load."""
    found = status(f"{settings.ENGINE_URL}/health")
    waits = None if settings.ENGINE == "vllm" else 503  # vLLM cannot listen before it has a model
    waits_rightly = found == waits and settings.ENGINE_EMBEDDED and not Path(settings.ENGINE_MODEL).exists()
    return found == 200 or waits_rightly


def ping() -> bool:
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=PATIENCE) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def answers(queue: str) -> bool:
    """Whether the worker of `queue` answers a ping through the broker."""
    from kombu.exceptions import KombuError

    from paramstack_site.celery import app

    if not ping():
        return False  # Celery would try again and again, and hold up the other questions
    try:
        return bool(app.control.ping(destination=[programs.node(queue)], timeout=0.5))
    except (OSError, redis.RedisError, KombuError):
        return False


def agent_looks() -> bool:
    """Whether somebody looks after this host's engine."""
    try:
        return any(map(replicas.is_attended, Replica.objects.filter(name=settings.ENGINE_NAME)))
    except DatabaseError:
        return False


def writer_reads() -> bool:
    """Whether some ledger writer holds the ledger's lease."""
    try:
        return ledger.is_kept()
    except DatabaseError:
        return False
