"""Idempotency-Key: a call that is sent again is answered once and charged once.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/: another body is a 422, a call under way a
409. Answers are kept only where the tenant asked for it; elsewhere a second try is told which call it was.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from typing import Any

import orjson

from inference.gateway.pipeline import Pipeline, Unavailable
from inference.gateway.reply import Scope
from inference.protocol import Refusal
from tenants import metering
from tenants.metering import Event

PREFIX = "ps:once:"  # + tenant:hash of key and Idempotency-Key; a string: JSON
DROP = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"
LONGEST_KEY = 255  # characters
KEPT_SECONDS = 86_400
OPEN_SECONDS = 3_600  # of a call under way; no call takes longer
YOUNG_SECONDS = 15.0  # within which a call may not have its hold yet
MOST_KEPT_BYTES = 256 * 1024  # of an answer; a larger one is not kept


def key_of(scope: Scope) -> str:
    """The header's text, empty if there is none; raises Refusal 400."""
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            text = str(value.decode("latin-1")).strip()
            if not 0 < len(text) <= LONGEST_KEY or not (text.isascii() and text.isprintable()):
                message = f"Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters."
                raise Refusal(400, "invalid_request", message, "Idempotency-Key")
            return text
    return ""


class Replay(Exception):
    """The answer that was given to the same call before."""

    def __init__(self, body: bytes, request_id: str) -> None:
        self.body, self.request_id = body, request_id


class Once:
    """One call under one Idempotency-Key: `begin`, and in any case `end`."""

    def __init__(self, pipe: Pipeline, tenant: str, key_id: str, text: str, digest: str, request_id: str) -> None:
        name = hashlib.sha256(f"{key_id}:{text}".encode()).hexdigest()
        self._pipe, self._place = pipe, f"{PREFIX}{tenant}:{name}"
        self._record = {"digest": digest, "request_id": request_id, "at": time.time(), "open": True}

    async def begin(self) -> None:
        """Returns if the call is the first; raises Replay, Refusal 409 or 422, Unavailable."""
        for _ in range(2):
            told = await self._set("NX", "GET", "EX", str(OPEN_SECONDS))
            if told is None:
                return
            found = orjson.loads(told)
            if found["digest"] != self._record["digest"]:
                message = "This Idempotency-Key was sent with another body. Use a new one for another call."
                raise Refusal(422, "idempotency_key_reused", message, "Idempotency-Key")
            if not found["open"]:
                raise self._answered(found)
            if time.time() - found["at"] < YOUNG_SECONDS or await self._is_held(found["request_id"]):
                message = f"The same call is under way as {found['request_id']}. Wait for its answer."
                raise Refusal(409, "idempotency_key_in_use", message, "Idempotency-Key", 1)
            await self._drop(told)  # its gateway died: the ledger has it as estimated
        raise Unavailable

    async def end(self, event: Event | None, answer: bytes | None) -> None:
        """`event` is how the call was settled, if it was admitted; `answer` is kept for the next try.

        A call that came to nothing and cost nothing may be sent again under the same key.
        """
        with contextlib.suppress(Unavailable):  # then the key opens by itself, once the hold is gone
            if event is None or not (event.status == "settled" or event.cost_nano):
                await self._drop(orjson.dumps(self._record))
                return
            self._record["open"] = False
            if answer is not None and len(answer) <= MOST_KEPT_BYTES:
                self._record["answer"] = base64.b64encode(answer).decode()
            await self._set("XX", "EX", str(KEPT_SECONDS))

    async def _drop(self, record: bytes) -> None:
        """Only while it is still that one: of two who take over a dead gateway's call, one begins it."""
        await self._pipe.run(DROP, ([self._place], [record]))

    async def _set(self, *how: str) -> bytes | None:
        told: bytes | None = await self._pipe.ask("SET", self._place, orjson.dumps(self._record).decode(), *how)
        return told

    async def _is_held(self, request_id: str) -> bool:
        return bool(await self._pipe.ask("HEXISTS", metering.HOLDS, request_id))

    def _answered(self, found: dict[str, Any]) -> Exception:
        if "answer" in found:
            return Replay(base64.b64decode(found["answer"]), found["request_id"])
        message = (
            f"This call was answered as {found['request_id']} and charged once. Answers are not kept for your "
            "organisation; an owner can have them kept. Use a new Idempotency-Key to ask again."
        )
        return Refusal(409, "idempotency_key_answered", message, "Idempotency-Key", wait_us=-1)
