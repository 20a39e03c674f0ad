"""Work that goes on for as long as the gateway lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Background:
    """`work` again and again with `pause` seconds before each time; what goes wrong is logged, and it goes on."""

    def __init__(self, work: Callable[[], Awaitable[None]], pause: Callable[[], float]) -> None:
        self._work, self._pause = work, pause
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        """Ends it between two times, or in the middle of one."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            try:
                await self._work()
            except Exception:  # whatever it was: nobody else would do this work
                log.exception("%s goes on.", self._work.__qualname__)
