"""The journey of a call that a model answers: request, admission, guardrails, engine, settlement."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial

from inference import protocol
from inference.gateway import once, refusing, reply, upstream
from inference.gateway.admission import Counters
from inference.gateway.call import Blocked, Call, Settle
from inference.gateway.door import Door
from inference.gateway.fleet import Fleet
from inference.gateway.pipeline import Unavailable
from inference.gateway.reply import Receive, Reply, Scope
from inference.gateway.snapshot import Key, TenantSnapshot
from inference.gateway.telemetry import Telemetry
from inference.gateway.upstream import EngineRefused, EngineUnavailable, Response, WrongKey
from inference.gateway.watching import Watch
from inference.protocol import Refusal, Request
from tenants import decisions
from tenants.metering import Event, Verdict

# Seconds behind each admission of one call by settings out of date: a change that falls between costs one, and
# between its commit and its word to Redis no reading fits.
PAUSES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 0.0)
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)  # an engine that does not speak the format
MARK_SECONDS = 0.2  # between looks at the ledger for a new mark while Redis has none


@dataclass(slots=True, eq=False)
class Asked:
    """A request with whoever sent it; `ended` is how it was settled, `body` the answer if it went as a whole."""

    scope: Scope
    receive: Receive
    reply: Reply
    snapshot: TenantSnapshot
    key: Key
    request: Request
    ended: Event | None = None
    body: bytes | None = None


class Answering:
    """`secret` signs what refusals say of themselves."""

    def __init__(
        self, door: Door, counters: Counters, fleet: Fleet, watch: Watch, telemetry: Telemetry, secret: bytes
    ) -> None:
        self._door, self._counters, self._fleet, self._watch = door, counters, fleet, watch
        self._telemetry, self._secret = telemetry, secret
        self._unmarked_until = 0.0

    async def answer(self, scope: Scope, receive: Receive, answer: Reply) -> None:
        """Raises Refusal."""
        snapshot, key = await self._door.open(scope)  # a stranger's body is not read
        request = protocol.PARSERS[scope["path"]](await reply.body(scope, receive))
        asked = Asked(scope, receive, answer, snapshot, key, request)
        if text := once.key_of(scope):
            await self._answer_once(asked, text)
        else:
            await self._answer(asked)

    async def _answer_once(self, asked: Asked, text: str) -> None:
        """Under an Idempotency-Key: the first time as ever, then with what that came to."""
        tenant, key, digest = asked.snapshot.tenant, asked.key.id, asked.request.digest
        first = once.Once(self._counters.pipe, tenant, key, text, digest, asked.reply.request_id)
        try:
            await first.begin()
        except once.Replay as replay:
            headers = {"idempotent-replayed": "true", "x-paramstack-first": replay.request_id}
            return await asked.reply.json(200, replay.body, headers)
        try:
            await self._answer(asked)
        finally:
            await first.end(asked.ended, asked.body if asked.snapshot.keeps_answers else None)

    async def _answer(self, asked: Asked) -> None:
        """Top to bottom; whatever happens after the admission, the call is settled once."""
        call, verdict = await self._admit(asked)
        settle, windows = partial(self._settle, asked, call), refusing.windows(verdict)
        self._watch.begin(call, asked.receive)
        try:
            try:
                await self._ask(asked, call, settle, windows)
            except EngineUnavailable as nobody:
                await self._ask_another(nobody, asked, call, settle, windows)
        except Refusal as refusal:
            refusal = await self._ended(call, refusal, settle)
            refusal.also = windows | call.headers()
            raise refusal from None
        finally:
            self._watch.end(call)
            await call.settle(settle, "aborted", "interrupted")

    async def _ask(self, asked: Asked, call: Call, settle: Settle, windows: dict[str, str]) -> None:
        """Raises EngineUnavailable where the caller has been sent nothing."""
        try:
            answering = await self._fleet.post(call, call.guard())
        except WrongKey:
            await self._door.doubt(call.current, call.key)
            raise
        async with answering as response:
            headers = windows | call.headers()
            if asked.request.stream:
                await self._stream(call, response, headers, asked.reply, settle)
            else:
                asked.body = await call.plain(response)
                await call.settle(settle, "settled")
                await asked.reply.json(200, asked.body, headers)

    async def _ask_another(
        self, nobody: EngineUnavailable, asked: Asked, call: Call, settle: Settle, windows: dict[str, str]
    ) -> None:
        """The same of the fallback; what it refuses was right for the model that was asked for: raises `nobody`."""
        chosen = call.target.served
        if not call.fall_back():
            raise nobody
        self._telemetry.fell_back(chosen, call.target.served)
        try:
            await self._ask(asked, call, settle, windows)
        except (EngineUnavailable, EngineRefused):
            raise nobody from None

    async def _stream(
        self, call: Call, response: Response, headers: dict[str, str], answer: Reply, settle: Settle
    ) -> None:
        """Relays until the engine is done or the client is gone. The row is written before the last event goes."""
        await answer.begin_stream(headers)
        try:
            await call.relay(response, answer.chunk)
            await call.settle(settle, "settled")
            await answer.chunk(protocol.DONE, more=False)
        except (*upstream.BROKEN, *UNREADABLE, EngineUnavailable) as error:
            failed = EngineUnavailable(call.target.served, type(error).__name__)
            await answer.end_stream(await self._ended(call, failed, settle, "engine_failed"))

    async def _ended(self, call: Call, refusal: Refusal, settle: Settle, reason: str = "") -> Refusal:
        """Settles a call that ended with `refusal`, for `reason` or its code; answers what its caller is told."""
        if call.left:
            await call.settle(settle, "aborted", "client_disconnected")
        elif call.stopped:
            await call.settle(settle, "aborted", call.stopped)
            return refusing.stopped(call.stopped)
        elif isinstance(refusal, Blocked):
            await call.settle(settle, "blocked", refusal.rule, free=True)
        else:
            await call.settle(settle, "aborted", reason or refusal.code, free=True)
        return refusal

    async def _settle(self, asked: Asked, call: Call, event: Event) -> None:
        asked.ended = event
        self._telemetry.ended(call.request.operation.name, event, call.host)
        await self._counters.settle(event)

    async def _admit(self, asked: Asked) -> tuple[Call, Verdict]:
        """The call with its hold taken. A snapshot that is out of date is read again and tried again."""
        snapshot, key, request = asked.snapshot, asked.key, asked.request
        for pause in PAUSES:
            unmarked = False
            try:
                call = _plan(asked.reply.request_id, snapshot, key, request)
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
            await asyncio.sleep(pause)
            snapshot, key = await self._door.open(asked.scope, old)
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
    if not choice.target.has_room(request.max_tokens):
        message = f"max_tokens is at most {choice.target.context_tokens}, the context of {request.model}."
        raise Refusal(400, "invalid_request", message, "max_tokens")
    return Call(request_id, snapshot, key, request, choice)
