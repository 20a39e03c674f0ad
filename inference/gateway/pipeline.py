"""The way to Redis: commands that are asked for in one tick of the loop travel together, in one round trip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from inference.protocol import Refusal
from tenants.metering import Packed

log = logging.getLogger(__name__)


class Unavailable(Refusal):
    """Redis does not answer, or not for the ledger: nobody can be admitted, because nobody can be counted."""

    def __init__(self) -> None:
        message = "The usage counters cannot be reached, so no call is admitted. Try again in a few seconds."
        super().__init__(503, "counters_unavailable", message, retry_after=5)


class Command:
    """A script with its keys and arguments, or with no script the words of a plain command."""

    __slots__ = ("keys", "reply", "script", "words")

    def __init__(self, script: str, keys: list[str], words: list[str | bytes], reply: asyncio.Future[Any]) -> None:
        self.script, self.keys, self.words, self.reply = script, keys, words, reply


class Pipeline:
    def __init__(self, url: str) -> None:
        retry = Retry(NoBackoff(), 1)  # every step may be sent twice
        self._redis = redis.asyncio.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=2, retry=retry)
        self._shas: dict[str, str] = {}
        self._waiting: list[Command] = []
        self._flights: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        while self._flights:
            await asyncio.gather(*self._flights, return_exceptions=True)
        await self._redis.aclose()

    def run(self, script: str, packed: Packed) -> asyncio.Future[Any]:
        """The reply of a script; the future raises Unavailable."""
        return self._enqueue(script, *packed)

    def ask(self, *words: str) -> asyncio.Future[Any]:
        """The reply of a plain command; the future raises Unavailable."""
        return self._enqueue("", [], list(words))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that `close` waits for."""
        task = asyncio.create_task(work)
        self._flights.add(task)
        task.add_done_callback(self._flights.discard)

    def _enqueue(self, script: str, keys: list[str], words: list[str | bytes]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._depart)
        self._waiting.append(Command(script, keys, words, reply))
        return reply

    def _depart(self) -> None:
        batch, self._waiting = self._waiting, []
        self.spawn(self._flush(batch))

    async def _flush(self, batch: list[Command]) -> None:
        try:
            replies = await self._execute(batch)
            missed = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missed:  # the server lost its scripts
                self._shas.clear()
                for place, reply in zip(missed, await self._execute([batch[at] for at in missed]), strict=True):
                    replies[place] = reply
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
        for script in {command.script for command in batch if command.script} - self._shas.keys():
            self._shas[script] = await self._redis.script_load(script)
        pipe = self._redis.pipeline(transaction=False)
        for command in batch:
            if command.script:
                pipe.evalsha(self._shas[command.script], len(command.keys), *command.keys, *command.words)
            else:
                pipe.execute_command(*command.words)
        return list(await pipe.execute(raise_on_error=False))
