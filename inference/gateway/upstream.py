"""The engine, which speaks the OpenAI wire format, behind connections that are kept."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import orjson

from inference.gateway.connection import Broken, Connection
from inference.protocol import Refusal

log = logging.getLogger(__name__)
# Idle connections go before uvicorn's 5 s, so that a call does not meet one that the engine is closing.
IDLE_SECONDS = 4.0
CONNECT_SECONDS = 2.0
SILENT_SECONDS = 120.0  # without a byte for so long, an engine is taken for dead
BROKEN = (OSError, TimeoutError)


class EngineUnavailable(Refusal):
    """The engine does not answer, or not with an answer. `is_sick`: that is about the engine, not about this model."""

    def __init__(self, served: str, reason: str, is_sick: bool = True) -> None:
        log.warning("Engine, %s: %s", served, reason)
        self.is_sick = is_sick
        message = (
            f"The model {served} is not being served at the moment ({reason}). Nothing was charged. "
            "Try again shortly; if it stays so, the operator checks the engine's health and loaded adapters."
        )
        super().__init__(503, "engine_unavailable", message, retry_after=5)


class WrongKey(EngineUnavailable):
    """The engine takes another key since its last start: what is known of it has to be read again."""

    def __init__(self, served: str) -> None:
        super().__init__(served, "the engine has a new key")


class EngineRefused(Refusal):
    """The engine understood and said no: for example a prompt longer than its context."""

    def __init__(self, reason: str) -> None:
        super().__init__(400, "engine_refused", f"The engine refused the request: {reason} Nothing was charged.")


class Caller:
    """Whoever waits for an engine. `connection` is there while it works; closing that ends the work."""

    connection: Connection | None = None
    over = False  # nobody waits any more
    carried = ""  # header lines that go along to the engine


class Response:
    """An answer on its way; leave its context, and the connection serves the next call or is closed."""

    __slots__ = ("_caller", "_pool", "connection", "status")

    def __init__(self, pool: Upstream, caller: Caller, connection: Connection, status: int) -> None:
        self._pool, self._caller, self.connection, self.status = pool, caller, connection, status

    async def read(self) -> bytes:
        """The whole body; raises one of BROKEN."""
        return await self.connection.read()

    async def next(self) -> bytes:
        """What has come of the body; empty at its end. Raises one of BROKEN."""
        return await self.connection.next()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.give_back(self._caller, self.connection)


class Upstream:
    """The connections to one engine, http or https. Whoever has it calls `tidy` now and then."""

    def __init__(self, url: str, secret: str = "") -> None:
        self.url, parts = url, urlsplit(url)
        secure = parts.scheme == "https"
        self._address = parts.hostname or "127.0.0.1", parts.port or (443 if secure else 80)
        self._ssl = ssl.create_default_context() if secure else None
        self._base = parts.path.rstrip("/")
        self._headers = f"Host: {parts.netloc}\r\nContent-Type: application/json\r\n"
        if secret:
            self._headers += f"Authorization: Bearer {secret}\r\n"
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._opening = 0
        self._closed = False

    @property
    def busy(self) -> int:
        """How many calls are under way here, from this process."""
        return len(self._busy) + self._opening

    def close(self) -> None:
        self._closed = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()

    def tidy(self, now: float) -> None:
        """Ends what nobody has used for long, and what an engine has been silent on for too long."""
        while self._idle and (self._idle[0].closed or now - self._idle[0].idle_since > IDLE_SECONDS):
            self._idle.pop(0).close()
        for connection in list(self._busy):
            if now - connection.heard_at > SILENT_SECONDS:
                connection.close(TimeoutError(f"silent for {SILENT_SECONDS:g} s"))

    async def is_well(self) -> bool:
        """Whether /health answers 200; raises one of BROKEN."""
        head = f"GET {self._base}/health HTTP/1.1\r\n{self._headers}\r\n".encode()
        async with asyncio.timeout(CONNECT_SECONDS), await self._send(Caller(), head, b"") as response:
            await response.read()
            return response.status == 200

    async def post(self, caller: Caller, served: str, path: str, payload: bytes, request_id: str) -> Response:
        """A response with status 200 whose body is not read yet; raises EngineUnavailable or EngineRefused."""
        head = (
            f"POST {self._base}{path} HTTP/1.1\r\n{self._headers}"
            f"{caller.carried}X-Request-Id: {request_id}\r\nContent-Length: {len(payload)}\r\n\r\n"
        ).encode()
        try:
            response = await self._send(caller, head, payload)
            if response.status != 200:
                async with response:
                    _refuse(served, response.status, await response.read())
        except BROKEN as error:
            raise EngineUnavailable(served, type(error).__name__) from error
        return response

    async def _send(self, caller: Caller, head: bytes, payload: bytes) -> Response:
        """On a connection that was kept; where the engine has dropped it without a byte, on a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            try:
                return await self._on(caller, connection, head, payload)
            except Broken:
                if connection.answered or caller.over:
                    raise Broken("the engine broke its answer off") from None
        return await self._on(caller, await self._open(), head, payload)

    async def _open(self) -> Connection:
        self._opening += 1
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                return (await loop.create_connection(Connection, *self._address, ssl=self._ssl))[1]
        finally:
            self._opening -= 1

    async def _on(self, caller: Caller, connection: Connection, head: bytes, payload: bytes) -> Response:
        self._busy.add(connection)
        caller.connection = connection
        try:
            if caller.over:  # it was while a connection was opened
                raise Broken("nobody waits for the answer")
            return Response(self, caller, connection, await connection.request(head, payload))
        except BaseException:
            self.give_back(caller, connection)
            raise

    def give_back(self, caller: Caller, connection: Connection) -> None:
        """For the next call, if this one's answer was read to its end."""
        caller.connection = None
        self._busy.discard(connection)
        if connection.done and not self._closed:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        elif not connection.closed:
            connection.close()


def _refuse(served: str, status: int, text: bytes) -> None:
    if status in (400, 413, 422):
        raise EngineRefused(_message(text))
    if status == 401:
        raise WrongKey(served)
    raise EngineUnavailable(served, f"the engine answered {status}", status != 404)


def _message(body: bytes) -> str:
    """The sentence of an error body, as vLLM and OpenAI write it."""
    try:
        data: Any = orjson.loads(body)
        return str(data.get("error", data).get("message", ""))[:300]
    except (orjson.JSONDecodeError, AttributeError):
        return ""
