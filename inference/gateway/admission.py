"""The gateway's side of admit and settle: Redis over one pipeline per loop tick, leases renewed, fail closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from inference.protocol import Refusal
from tenants import metering

log = logging.getLogger(__name__)
RENEW_SECONDS = metering.LEASE_MS / 4000
SETTLE_PAUSES = (0.1, 0.5, 2.0)  # seconds between attempts; after the last one the lease lapses


class Unavailable(Refusal):
    """Redis does not answer: nobody can be admitted, because nobody can be counted."""

    def __init__(self) -> None:
        message = "The usage counters cannot be reached, so no call is admitted. Try again in a few seconds."
        super().__init__(503, "counters_unavailable", message, retry_after=5)


@dataclass(slots=True)
class Command:
    script: str
    keys: list[str]
    args: list[str | bytes]
    reply: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Counters:
    """Runs scripts; commands that are asked for in one tick of the loop travel together."""

    def __init__(self, url: str) -> None:
        retry = Retry(NoBackoff(), 1)  # both steps may be sent twice
        self._redis = redis.asyncio.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=2, retry=retry)
        self._shas: dict[str, str] = {}
        self._waiting: list[Command] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._held: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._renewing = asyncio.create_task(self._renew())

    async def close(self) -> None:
        if self._renewing:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        if self._flights:
            await asyncio.gather(*self._flights, return_exceptions=True)
        await self._redis.aclose()

    async def admit(self, event: metering.Event, limits: metering.Limits) -> metering.Verdict:
        """Takes the hold or says why not; raises Unavailable."""
        asked = asyncio.ensure_future(self._run(metering.ADMIT, *metering.admit(event, limits)))
        try:
            verdict = metering.verdict(await asyncio.shield(asked))
        except (Unavailable, asyncio.CancelledError):
            # The step may run or have run all the same: release a hold that nobody will use.
            self._spawn(self._release(event, asked))
            raise
        if not verdict.reason:
            self._held.add(event.request_id)
        return verdict

    async def settle(self, event: metering.Event) -> bool:
        """Writes the event; False if the hold was gone. Gives up after some attempts: then the lease lapses."""
        self._held.discard(event.request_id)
        keys, args = metering.settle(event)
        for pause in (*SETTLE_PAUSES, 0.0):
            try:
                return bool(await self._run(metering.SETTLE, keys, args) == 1)
            except Unavailable:
                await asyncio.sleep(pause)
        log.error("Could not settle %s; the ledger writer will book it as estimated.", event.request_id)
        return False

    async def _release(self, event: metering.Event, asked: asyncio.Future[Any]) -> None:
        """Books nothing for a call that got nothing. Until a hold is found, it may still be on its way to Redis."""
        reply: Any = (await asyncio.gather(asked, return_exceptions=True))[0]
        lost = isinstance(reply, BaseException)
        if not lost and metering.verdict(reply).reason:
            return
        reason = "counters_unavailable" if lost else "client_disconnected"
        nothing = event.ending("aborted", reason=reason, input_tokens=0, output_tokens=0, cost_nano=0)
        for pause in (*SETTLE_PAUSES, 0.0):
            with contextlib.suppress(Unavailable):
                if await self._run(metering.SETTLE, *metering.settle(nothing)) == 1:
                    return
            await asyncio.sleep(pause)
        log.warning("No hold of %s was found to release.", event.request_id)

    async def epoch(self, tenant: str) -> int:
        """The tenant's epoch, 0 if Redis has none; raises Unavailable."""
        try:
            return int(await self._redis.get(metering.epoch_key(tenant)) or 0)
        except (RedisError, OSError) as error:
            raise Unavailable from error

    async def _run(self, script: str, keys: list[str], args: list[str | bytes]) -> Any:
        command = Command(script, keys, args)
        self._waiting.append(command)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(lambda: self._spawn(self._flush()))
        return await command.reply

    async def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            replies = await self._execute(batch)
            if any(isinstance(reply, NoScriptError) for reply in replies):
                self._shas.clear()
                replies = await self._execute(batch)
        except (RedisError, OSError) as error:
            replies = [error] * len(batch)
        for command, reply in zip(batch, replies, strict=True):
            if command.reply.done():  # its call was cancelled
                continue
            if isinstance(reply, BaseException):
                log.warning("Redis: %s", reply)
                command.reply.set_exception(Unavailable())
            else:
                command.reply.set_result(reply)

    async def _execute(self, batch: list[Command]) -> list[Any]:
        for script in {command.script for command in batch} - self._shas.keys():
            self._shas[script] = await self._redis.script_load(script)
        pipe = self._redis.pipeline(transaction=False)
        for command in batch:
            pipe.evalsha(self._shas[command.script], len(command.keys), *command.keys, *command.args)
        return list(await pipe.execute(raise_on_error=False))

    async def _renew(self) -> None:
        """Tells that this gateway lives: pushes the leases of its calls on, by the server's clock."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                seconds, micros = await self._redis.time()
                until = seconds * 1000 + micros // 1000 + metering.LEASE_MS
                if self._held:
                    await self._redis.zadd(metering.LEASES, dict.fromkeys(self._held, until), xx=True)
            except (RedisError, OSError) as error:
                log.warning("Leases not renewed: %s", error)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._flights.add(task)
        task.add_done_callback(self._flights.discard)
