"""One connection to Redis that many commands are under way on: RESP2, packed and read by hiredis.

redis-py's packing and bookkeeping cost a third of a call; this does the two things a pipeline needs and nothing else.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 3.0  # without a reply for so long, the connection is given up

Word = str | bytes | int


class Lost(ConnectionError):
    """The connection ended before everything was answered; what was sent may have been done or not."""


class Link(asyncio.Protocol):
    """`open` makes one. Replies come in the order of the commands; an error is a reply too (hiredis.ReplyError)."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._batches: deque[tuple[asyncio.Future[list[Any]], int, list[Any]]] = deque()
        self._transport: asyncio.Transport
        self._watch: asyncio.TimerHandle | None = None
        self._answered = 0
        self.lost = False

    @classmethod
    async def open(cls, url: str) -> Link:
        """Connects and authenticates as `url` says (redis, rediss or unix); raises OSError or RedisError."""
        told: dict[str, Any] = dict(parse_url(url))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            if "path" in told:
                _, link = await loop.create_unix_connection(cls, told["path"])
            else:
                secure = told.get("connection_class") is SSLConnection
                context = ssl.create_default_context(cafile=told.get("ssl_ca_certs")) if secure else None
                address = told.get("host", "localhost"), told.get("port", 6379)
                _, link = await loop.create_connection(cls, *address, ssl=context)
            await link._introduce(told)
        return link

    async def _introduce(self, told: dict[str, Any]) -> None:
        opening: list[tuple[Word, ...]] = []
        if told.get("password"):
            opening.append(("AUTH", *filter(None, (told.get("username"), told["password"]))))
        if told.get("db"):
            opening.append(("SELECT", told["db"]))
        for reply in await self.send(opening) if opening else ():
            if isinstance(reply, Exception):
                self.close()
                raise Lost(f"Redis does not let us in: {reply}")

    def send(self, commands: Sequence[tuple[Word, ...]]) -> asyncio.Future[list[Any]]:
        """All replies together; the future raises Lost."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        if self.lost:
            future.set_exception(Lost("no connection"))
            return future
        self._batches.append((future, len(commands), []))
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]  # of any length
        self._transport.write(b"".join(packed))
        if self._watch is None:
            self._watch = loop.call_later(REPLY_SECONDS, self._check, self._answered)
        return future

    def close(self) -> None:
        self._transport.abort()
        self._fail(Lost("closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        self._answered += 1
        self._reader.feed(data)
        try:
            while self._batches and (reply := self._reader.gets()) is not False:
                future, count, replies = self._batches[0]
                replies.append(reply)
                if len(replies) == count:
                    self._batches.popleft()
                    if not future.done():
                        future.set_result(replies)
        except hiredis.ProtocolError as error:
            self._transport.abort()
            self._fail(Lost(f"this is not Redis: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(Lost(str(error or "Redis closed the connection")))

    def _check(self, answered: int) -> None:
        """Nothing has come since the last look and something is waited for: it will not come."""
        self._watch = None
        if not self._batches:
            return None
        if self._answered == answered:
            self._transport.abort()
            return self._fail(Lost(f"no reply for {REPLY_SECONDS:g} s"))
        self._watch = asyncio.get_running_loop().call_later(REPLY_SECONDS, self._check, self._answered)
        return None

    def _fail(self, error: Lost) -> None:
        self.lost = True
        if self._watch:
            self._watch.cancel()
            self._watch = None
        while self._batches:
            future, *_ = self._batches.popleft()
            if not future.done():
                future.set_exception(error)


class Links:
    """The link in use, opened when it is needed and again when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None

    async def get(self) -> tuple[Link, bool]:
        """The link, and whether it was there already; raises OSError, TimeoutError or Lost."""
        if self._link and not self._link.lost:
            return self._link, True
        if self._opening is None:
            self._opening = asyncio.create_task(Link.open(self._url))
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening), False

    def _opened(self, task: asyncio.Task[Link]) -> None:
        self._opening = None
        if not task.cancelled() and not task.exception():
            self._link = task.result()

    async def close(self) -> None:
        if self._opening:
            with contextlib.suppress(OSError, TimeoutError):
                await self._opening
        if self._link:
            self._link.close()
