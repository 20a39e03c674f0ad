"""`Idempotency-Key` on a POST: sent again, it answers what it answered and does nothing twice. Kept for a day.

What the request did and its answer commit together, so a process that dies in between leaves neither. Only answers of
success are kept: a request that was refused changed nothing and may be tried again under its key. The answer rests
encrypted, for it may hold a secret that is shown once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from attestation import vault
from tenants.models import IdempotentReply
from tenants.problems import Refused

PURPOSE = "idempotent replies"
KEPT = timedelta(days=1)
LONGEST_REQUEST = timedelta(minutes=10)  # one that is at work for longer has died
LONGEST_KEY = 80


class BadKey(Refused):
    status, field = 400, "Idempotency-Key"

    def __init__(self) -> None:
        super().__init__(_("An Idempotency-Key has 1 to 80 visible ASCII characters."))


class KeyReused(Refused):
    field = "Idempotency-Key"

    def __init__(self) -> None:
        super().__init__(_("This Idempotency-Key came with another request before. Use a new one for each request."))


class StillRunning(Refused):
    status, field = 409, "Idempotency-Key"

    def __init__(self) -> None:
        super().__init__(_("The request with this Idempotency-Key is still at work. Ask again in a moment."))


def once(request: Any, key: str, work: Callable[[], Response]) -> Response:
    """The answer of `work()`, or of the time that it was done before. Raises BadKey, KeyReused, StillRunning."""
    if not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise BadKey
    caller = f"key:{request.auth.pk}" if request.auth else f"user:{request.user.pk}"
    place = {"tenant": request.tenant, "caller": caller, "key": key}
    _forget(place)
    try:
        with transaction.atomic():
            row = IdempotentReply.objects.create(**place, digest=_digest(request))
    except IntegrityError:
        return _again(place, _digest(request))
    try:
        with transaction.atomic():
            answer = work()
            _keep(row, answer)
    except BaseException:
        IdempotentReply.objects.filter(pk=row.pk, status=None).delete()
        raise
    return answer


def forget() -> int:
    """Deletes answers that are older than a day; answers how many."""
    return IdempotentReply.objects.filter(created_at__lt=timezone.now() - KEPT).delete()[0]


def _forget(place: dict[str, Any]) -> None:
    """The row of this key, if its day is over or its request died. What it did, it did not commit."""
    rows, now = IdempotentReply.objects.filter(**place), timezone.now()
    rows.filter(created_at__lt=now - KEPT).delete()
    rows.filter(created_at__lt=now - LONGEST_REQUEST, status=None).delete()


def _keep(row: IdempotentReply, answer: Response) -> None:
    if answer.status_code >= 300:
        IdempotentReply.objects.filter(pk=row.pk).delete()
        return
    body = vault.seal(PURPOSE, str(row.pk), JSONRenderer().render(answer.data))
    kept = IdempotentReply.objects.filter(pk=row.pk, status=None).update(status=answer.status_code, body=body)
    if not kept:  # it took so long that another one took its place
        raise StillRunning


def _again(place: dict[str, Any], digest: str) -> Response:
    row = IdempotentReply.objects.filter(**place).first()
    if row is None:  # it failed between our try and now
        raise StillRunning
    if row.digest != digest:
        raise KeyReused
    if row.status is None:
        raise StillRunning
    body = vault.unseal(PURPOSE, str(row.pk), bytes(row.body))
    return Response(json.loads(body or b"null"), status=row.status, headers={"Idempotent-Replayed": "true"})


def _digest(request: Any) -> str:
    """SHA-256 of method, path and body; of a form with files, of its fields and what the files hold."""
    seen = hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode())
    if not str(request.content_type).startswith("multipart/"):
        seen.update(request.body)
        return seen.hexdigest()
    for name in sorted(request.data):
        for value in request.data.getlist(name):
            chunks = value.chunks() if hasattr(value, "chunks") else [str(value).encode()]
            part = hashlib.sha256(b"".join(chunks)).hexdigest()
            seen.update(f"{name}={part}\n".encode())
            if hasattr(value, "seek"):
                value.seek(0)
    return seen.hexdigest()
