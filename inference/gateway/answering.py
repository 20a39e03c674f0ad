"""The journey of a call that a model answers: request, admission, guardrails, engine, settlement."""

from __future__ import annotations

import time

from inference import protocol
from inference.gateway import refusing, reply
from inference.gateway.admission import Counters
from inference.gateway.call import Blocked, Call
from inference.gateway.door import Door
from inference.gateway.fleet import Fleet
from inference.gateway.pipeline import Unavailable
from inference.gateway.reply import Receive, Reply, Scope
from inference.gateway.snapshot import Key, TenantSnapshot
from inference.gateway.streams import Streams
from inference.gateway.upstream import WrongKey
from inference.protocol import Refusal, Request
from tenants import decisions
from tenants.metering import Verdict

ATTEMPTS = 4  # admissions of one call: each change of the tenant that falls between costs one
MARK_SECONDS = 0.2  # between looks at the ledger for a new mark while Redis has none


class Answering:
    """`secret` signs what refusals say of themselves."""

    def __init__(self, door: Door, counters: Counters, fleet: Fleet, streams: Streams, secret: bytes) -> None:
        self._door, self._counters, self._fleet, self._streams = door, counters, fleet, streams
        self._secret = secret
        self._unmarked_until = 0.0

    async def answer(self, scope: Scope, receive: Receive, answer: Reply) -> None:
        """Top to bottom; whatever happens after the admission, the call is settled once."""
        snapshot, key = await self._door.open(scope)  # a stranger's body is not read
        request = protocol.PARSERS[scope["path"]](await reply.body(scope, receive))
        call, verdict = await self._admit(scope, snapshot, key, request, answer.request_id)
        settle, headers = self._counters.settle, refusing.windows(verdict) | call.headers()
        try:
            response = await self._fleet.post(call, call.guard())
            async with response:
                if request.stream:
                    await self._streams.relay(call, response, headers, receive, answer, settle)
                else:
                    body = await call.plain(response)
                    await call.settle(settle, "settled")
                    await answer.json(200, body, headers)
        except Blocked as block:
            await call.settle(settle, "blocked", block.rule, free=True)
            block.also = headers
            raise
        except Refusal as refusal:
            await call.settle(settle, "aborted", refusal.code, free=True)
            refusal.also = headers
            if isinstance(refusal, WrongKey):
                await self._door.doubt(snapshot, key)
            raise
        finally:
            await call.settle(settle, "aborted", "interrupted")

    async def _admit(
        self, scope: Scope, snapshot: TenantSnapshot, key: Key, request: Request, request_id: str
    ) -> tuple[Call, Verdict]:
        """The call with its hold taken. A snapshot that is out of date is read again and tried again."""
        for _ in range(ATTEMPTS):
            unmarked = False
            try:
                call = _plan(request_id, snapshot, key, request)
            except Refusal as refusal:  # by the settings as they are now, or as they were?
                if now_us := await self._door.now_if_current(snapshot, key):
                    raise self._decided(refusal, snapshot, key, request.model, now_us) from None
            else:
                verdict = await self._counters.admit(call)
                if not verdict.reason:
                    call.at_us = verdict.at_us
                    return call, verdict
                self._check(verdict, call)
                unmarked = verdict.reason == "unmarked"
            old = snapshot
            snapshot, key = await self._door.open(scope, old)
            if unmarked and snapshot.mark == old.mark:  # not rebuilt yet
                self._unmarked_until = time.monotonic() + MARK_SECONDS
                raise Unavailable
        raise Refusal(503, "settings_changing", "Your organisation's settings are changing. Try again.", None, 1)

    def _check(self, verdict: Verdict, call: Call) -> None:
        """Returns where reading the snapshot again may help; raises Refusal."""
        if verdict.reason == "refused":
            most = (call.tokens, call.hold_nano, call.max_tokens, call.request.answers)
            decision = decisions.refused(verdict, call.event, *most)
            raise refusing.over(verdict, decisions.issue(self._secret, decision), decision.code)
        if verdict.reason == "backlog":
            raise refusing.backlog()
        if verdict.reason == "unmarked" and time.monotonic() < self._unmarked_until:
            raise Unavailable

    def _decided(self, refusal: Refusal, snapshot: TenantSnapshot, key: Key, model: str, now_us: int) -> Refusal:
        if isinstance(refusal, refusing.NotAllowed):
            return refusal.decided(self._secret, snapshot.tenant, key.id, model, now_us)
        return refusal


def _plan(request_id: str, snapshot: TenantSnapshot, key: Key, request: Request) -> Call:
    """Where the call goes and what it can cost at most; raises Refusal."""
    if not key.allows(request.model):
        raise refusing.NotAllowed(request.model)
    route = snapshot.routes.get(request.model)
    if route is None:
        raise refusing.unknown_model(request.model)
    if closed := request.extras - snapshot.extras:
        raise refusing.not_opened(min(closed))
    choice = route.choose(request.user or key.id)
    if choice is None:
        message = f"{request.model} has no price yet. The operator adds {route.unpriced} to the price book."
        raise Refusal(503, "model_not_priced", message, "model")
    context = choice.target.context_tokens
    if context and (request.max_tokens or 0) > context:
        message = f"max_tokens is at most {context}, the context of {request.model}."
        raise Refusal(400, "invalid_request", message, "max_tokens")
    return Call(request_id, snapshot, key, request, choice)
