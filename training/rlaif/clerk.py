"""Writes a run's rows from inside its loop: one thread, and one transaction for all that came while the last one ran.

The rule: a write is done when its transaction has committed under the job's claim; whoever waits for one always hears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import connections

from training.problems import Problem

LINGER = 0.005  # seconds that a first write waits for others to go with it
Guard = Callable[[], AbstractContextManager[None]]


@dataclass
class Write:
    """Something for the clerk: `work` gets nothing and its result goes into `done`."""

    work: Callable[[], Any]
    done: asyncio.Future[Any]


@dataclass
class Clerk:
    """Runs database work in one thread; what comes while it writes goes together into the next transaction."""

    guard: Guard
    _queue: list[Write] = field(default_factory=list)
    _running: asyncio.Task[None] | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def write(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """The result of `work`, once its transaction has committed; what it raises, where only it failed."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(Write(work, done))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._serve())
        return done

    async def read(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """After what was asked for is written."""
        if self._running:
            await asyncio.gather(self._running, return_exceptions=True)
        await self.read(connections.close_all)
        self._thread.shutdown()

    async def _serve(self) -> None:
        await asyncio.sleep(LINGER)
        while self._queue:
            batch, self._queue = self._queue, []
            try:
                results = await self.read(partial(self._commit, batch))
            except BaseException as error:  # nobody may wait for ever
                for write in batch:
                    if not write.done.done():
                        write.done.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for write, (result, problem) in zip(batch, results, strict=True):
                if write.done.done():
                    continue
                if problem:
                    write.done.set_exception(problem)
                else:
                    write.done.set_result(result)

    def _commit(self, batch: Sequence[Write]) -> list[tuple[Any, Problem | None]]:
        """A Problem is one write's own and undoes nothing; any other error undoes all of them."""
        results: list[tuple[Any, Problem | None]] = []
        with self.guard():
            for write in batch:
                try:
                    results.append((write.work(), None))
                except Problem as problem:
                    results.append((None, problem))
        return results
