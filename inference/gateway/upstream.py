"""The pooled connection to the engine, which speaks the OpenAI wire format."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import orjson

from inference.protocol import Refusal

log = logging.getLogger(__name__)
# Idle connections go before uvicorn's 5 s, so that a call does not meet one that the engine is closing.
IDLE_SECONDS = 4
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=120)
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class EngineUnavailable(Refusal):
    """The engine does not answer, or not with an answer."""

    def __init__(self, served: str, reason: str) -> None:
        log.warning("Engine, %s: %s", served, reason)
        message = (
            f"The model {served} is not being served at the moment ({reason}). Nothing was charged. "
            "Try again shortly; if it stays so, the operator checks the engine's health and loaded adapters."
        )
        super().__init__(503, "engine_unavailable", message, retry_after=5)


class EngineRefused(Refusal):
    """The engine understood and said no: for example a prompt longer than its context."""

    def __init__(self, reason: str) -> None:
        super().__init__(400, "engine_refused", f"The engine refused the request: {reason} Nothing was charged.")


class Upstream:
    def __init__(self, url: str) -> None:
        self._address = f"{url.rstrip('/')}/v1/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, auto_decompress=True)

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def post(self, served: str, payload: bytes) -> aiohttp.ClientResponse:
        """A response with status 200 whose body is not read yet; raises EngineUnavailable or EngineRefused."""
        assert self._session, "Upstream.start() comes first."
        headers = {"content-type": "application/json"}
        try:
            response = await self._session.post(self._address, data=payload, headers=headers)
            if response.status != 200:
                await _refuse(served, response)
        except BROKEN as error:
            raise EngineUnavailable(served, type(error).__name__) from error
        return response


async def _refuse(served: str, response: aiohttp.ClientResponse) -> None:
    text = await response.read()
    reason = _message(text)
    if response.status in (400, 413, 422):
        raise EngineRefused(reason)
    raise EngineUnavailable(served, f"the engine answered {response.status}")


def _message(body: bytes) -> str:
    """The sentence of an error body, as vLLM and OpenAI write it."""
    try:
        data: Any = orjson.loads(body)
        return str(data.get("error", data).get("message", ""))[:300]
    except (orjson.JSONDecodeError, AttributeError):
        return ""
