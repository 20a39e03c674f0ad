"""Writes that leave at the end of a tick, those of all connections together.

Who is woken by a write takes the processor at once where processors are few: written in the midst of a tick, each cost
the rest of it a warm cache, a fifteenth of a call. And what belongs together, a header and its body, is one packet.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class _Tick(threading.local):
    """The corks of this thread's loop that have something to write."""

    loop: asyncio.AbstractEventLoop | None = None
    full: list[Corked]


_tick = _Tick()


class Corked:
    """A transport. `close` writes what waits before it closes; all else goes through."""

    __slots__ = ("_parts", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            loop = asyncio.get_running_loop()
            if _tick.loop is not loop:
                _tick.loop, _tick.full = loop, []
            if not _tick.full:
                loop.call_soon(_uncork)
            _tick.full.append(self)
        self._parts.append(data)

    def flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _uncork() -> None:
    full, _tick.full = _tick.full, []
    for cork in full:
        cork.flush()
