"""The way to Redis: commands that are asked for in one tick of the loop travel together, in one round trip."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Coroutine
from functools import cache
from typing import Any

from hiredis import ReplyError
from redis.exceptions import RedisError

from inference.gateway.link import Links, Lost
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

    __slots__ = ("reply", "script", "words")

    def __init__(self, script: str, words: tuple[str | bytes | int, ...], reply: asyncio.Future[Any]) -> None:
        self.script, self.words, self.reply = script, words, reply

    def settle(self, reply: Any) -> None:
        if self.reply.done():  # its call was cancelled
            return
        if isinstance(reply, Exception):
            log.warning("Redis: %s", reply)
            self.reply.set_exception(Unavailable())
        else:
            self.reply.set_result(reply)


class Pipeline:
    def __init__(self, url: str) -> None:
        self._links = Links(url)
        self._waiting: list[Command] = []
        self._flights: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        while self._flights:
            await asyncio.gather(*self._flights, return_exceptions=True)
        await self._links.close()

    def run(self, script: str, packed: Packed) -> asyncio.Future[Any]:
        """The reply of a script; the future raises Unavailable."""
        keys, args = packed
        return self._enqueue(script, ("EVALSHA", _sha(script), len(keys), *keys, *args))

    def ask(self, *words: str) -> asyncio.Future[Any]:
        """The reply of a plain command; the future raises Unavailable."""
        return self._enqueue("", words)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that `close` waits for."""
        task = asyncio.create_task(work)
        self._flights.add(task)
        task.add_done_callback(self._flights.discard)

    def _enqueue(self, script: str, words: tuple[str | bytes | int, ...]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._depart)
        self._waiting.append(Command(script, words, reply))
        return reply

    def _depart(self) -> None:
        batch, self._waiting = self._waiting, []
        self.spawn(self._flush(batch))

    async def _flush(self, batch: list[Command]) -> None:
        replies: list[Any] = [Lost("cancelled")] * len(batch)
        try:
            replies = await self._execute(batch)
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            replies = [error] * len(batch)
        finally:  # whatever ended this, nobody may wait for ever
            for command, reply in zip(batch, replies, strict=True):
                command.settle(reply)

    async def _execute(self, batch: list[Command]) -> list[Any]:
        """The replies, errors among them; raises OSError or TimeoutError where there is no Redis."""
        replies = await self._send([command.words for command in batch])
        missed = [place for place, reply in enumerate(replies) if _lacks_script(reply)]
        if missed:  # a server that has not met them
            scripts = {batch[place].script for place in missed}
            again = [("SCRIPT", "LOAD", script) for script in scripts] + [batch[place].words for place in missed]
            for place, reply in zip(missed, (await self._send(again))[len(scripts) :], strict=True):
                replies[place] = reply
        return replies

    async def _send(self, commands: list[tuple[str | bytes | int, ...]]) -> list[Any]:
        """Once more on a new connection if the one that was there has gone: every step may be sent twice."""
        link, used = await self._links.get()
        try:
            return await link.send(commands)
        except Lost:
            if not used:
                raise
        link, _ = await self._links.get()
        return await link.send(commands)


@cache
def _sha(script: str) -> str:
    """The name by which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _lacks_script(reply: Any) -> bool:
    return isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")
