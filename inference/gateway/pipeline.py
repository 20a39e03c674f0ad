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

from inference.gateway.link import Link, Links, Lost
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

    __slots__ = ("_pipe", "_taught", "_was_lost", "reply", "script", "words")

    def __init__(
        self, pipe: Pipeline, script: str, words: tuple[str | bytes | int, ...], reply: asyncio.Future[Any]
    ) -> None:
        self._pipe, self.script, self.words, self.reply = pipe, script, words, reply
        self._was_lost = self._taught = False

    def settle(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            if self.script and not self._taught and str(reply).startswith("NOSCRIPT"):
                self._taught = True
                return self._pipe.teach(self)
            return self.fail(reply)
        if not self.reply.done():  # else its call was cancelled
            self.reply.set_result(reply)
        return None

    def lost(self, error: Exception) -> None:
        """Goes once more: every step may be sent twice."""
        if self._was_lost or self.reply.done():
            return self.fail(error)
        self._was_lost = True
        return self._pipe.send([self])

    def fail(self, error: BaseException) -> None:
        if not self.reply.done():
            log.warning("Redis: %s", error or type(error).__name__)
            self.reply.set_exception(Unavailable())


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

    def send(self, batch: list[Command]) -> None:
        """At once, or as soon as there is a connection."""
        if link := self._links.link:
            _hand_over(link, batch)
        else:
            self.spawn(self._open(batch))

    def teach(self, command: Command) -> None:
        """Sends a script to a server that has not met it, and the command again."""
        loading = Command(self, "", ("SCRIPT", "LOAD", command.script), asyncio.get_running_loop().create_future())
        loading.reply.add_done_callback(lambda done: done.exception())  # nobody waits for it
        self.send([loading, command])

    def _enqueue(self, script: str, words: tuple[str | bytes | int, ...]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._depart)
        self._waiting.append(Command(self, script, words, reply))
        return reply

    def _depart(self) -> None:
        batch, self._waiting = self._waiting, []
        self.send(batch)

    async def _open(self, batch: list[Command]) -> None:
        error: BaseException = Lost("cancelled")
        link = None
        try:
            link = await self._links.get()
        except (RedisError, OSError, TimeoutError, ValueError) as problem:
            error = problem
        finally:  # whatever ended this, nobody may wait for ever
            if link is None:
                for command in batch:
                    command.fail(error)
        if link:
            _hand_over(link, batch)


def _hand_over(link: Link, batch: list[Command]) -> None:
    try:
        link.send(batch)
    except Exception as error:  # a command that cannot be packed: nobody may wait for ever
        for command in batch:
            command.fail(error)
        raise


@cache
def _sha(script: str) -> str:
    """The name by which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
