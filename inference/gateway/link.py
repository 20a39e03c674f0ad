"""One connection to Redis that many commands are under way on: RESP2, packed and read by hiredis.

redis-py's packing and bookkeeping cost a third of a call; this does the two things a pipeline needs and nothing else.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 3.0  # without a reply for so long, the connection is given up

Word = str | bytes | int


class Lost(ConnectionError):
    """The connection ended before everything was answered; what was sent may have been done or not."""


class Command(Protocol):
    """What a link sends, and whom it tells the reply (hiredis.ReplyError is one too) or that there will be none."""

    words: tuple[Word, ...]

    def settle(self, reply: Any) -> None: ...

    def lost(self, error: Lost) -> None: ...


class Link(asyncio.Protocol):
    """`open` makes one. Replies come in the order of the commands."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[Command] = deque()
        self._transport: asyncio.Transport
        self._watch: asyncio.TimerHandle | None = None
        self._since = 0.0  # monotonic: since when nothing has come that is waited for
        self.gone = False

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
        for words in opening:
            asked = Asked(words)
            self.send([asked])
            if isinstance(reply := await asked.reply, Exception):
                self.close()
                raise Lost(f"Redis does not let us in: {reply}")

    def send(self, commands: Sequence[Command]) -> None:
        """Each is told its reply, or that there will be none."""
        if self.gone:
            for command in commands:
                command.lost(Lost("no connection"))
            return
        # What cannot be packed raises before it is waited for, or every reply after it would be another command's.
        packed = [hiredis.pack_command(command.words) for command in commands]  # type: ignore[arg-type]  # any length
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.extend(commands)
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        if self._watch is None:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(REPLY_SECONDS, self._check)

    def close(self) -> None:
        self._transport.abort()
        self._fail(Lost("closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        self._since = time.monotonic()
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while waiting and (reply := reader.gets()) is not False:
                waiting.popleft().settle(reply)
        except hiredis.ProtocolError as error:
            self._transport.abort()
            self._fail(Lost(f"this is not Redis: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(Lost(str(error or "Redis closed the connection")))

    def _check(self) -> None:
        """Is something waited for that will not come?"""
        self._watch = None
        if not self._waiting:
            return None
        left = self._since + REPLY_SECONDS - time.monotonic()
        if left <= 0:
            self._transport.abort()
            return self._fail(Lost(f"no reply for {REPLY_SECONDS:g} s"))
        self._watch = asyncio.get_running_loop().call_later(left, self._check)
        return None

    def _fail(self, error: Lost) -> None:
        self.gone = True
        if self._watch:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, deque()
        for command in waiting:
            command.lost(error)


class Asked:
    """A command whose reply is waited for here; an error of Redis's is a reply."""

    def __init__(self, words: tuple[Word, ...]) -> None:
        self.words = words
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def settle(self, reply: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

    def lost(self, error: Lost) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class Links:
    """The link in use, opened when it is needed and again when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None

    @property
    def link(self) -> Link | None:
        """The one that is open."""
        return self._link if self._link and not self._link.gone else None

    async def get(self) -> Link:
        """Raises OSError, TimeoutError or Lost."""
        if link := self.link:
            return link
        if self._opening is None:
            self._opening = asyncio.create_task(Link.open(self._url))
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

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
