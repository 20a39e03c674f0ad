"""When a call may go: one limiter in Redis for all workers, which follows what the provider says of its limits.

The rule: nobody sends before its turn, and a provider that says "slow down" is left alone by everybody for as long as
it said. Limits come from its headers (`anthropic-ratelimit-*-limit`, a minute); until one has come calls go slowly.
A key and a model have one set of limits. `lua/pace.lua` and `lua/told.lua` are the two steps.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from inference.gateway.pipeline import Unavailable

UNTOLD = 300  # requests a minute while nobody knows a limit
EARLY = 0.1  # seconds that a call may go before its turn: clocks and loops are not exact
LONGEST = 1.0  # seconds between looks
WELL = 10  # calls that went well are told together
LIMITS = ("requests", "input-tokens", "output-tokens")
PACE, TOLD = ((Path(__file__).parent.parent / "lua" / f"{name}.lua").read_text() for name in ("pace", "told"))


class Pipe(Protocol):
    """`inference.gateway.pipeline.Pipeline`, as much of it as is needed here."""

    def run(self, script: str, packed: tuple[list[str], list[str | bytes]]) -> asyncio.Future[Any]: ...


class Pacer:
    """The turns of one key and model, in the order in which they are asked for."""

    def __init__(self, pipe: Pipe, key: str, model: str, untold: int = UNTOLD) -> None:
        digest = hashlib.sha256(f"{key}\0{model}".encode()).hexdigest()[
            :32
        ]  # a key's text is nobody's to read in Redis
        self._pipe, self._name, self._untold = pipe, f"ps:pace:{digest}", untold
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._inputs, self._outputs = 0.0, 0.0
        self._well, self._last = 0, [0, 0, 0]

    async def turn(self) -> None:
        """Returns when one call may go. Raises Unavailable."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._serve())
        await mine

    async def answered(self, headers: Mapping[str, str], inputs: int, outputs: int) -> None:
        """Learns from a call that went well, and from what it used."""
        self._inputs, self._outputs = _smooth(self._inputs, inputs), _smooth(self._outputs, outputs)
        self._well += 1
        told = _limits(headers)
        if self._well >= WELL or told != self._last:
            well, self._well, self._last = self._well, 0, told
            await self._tell(headers, -1, well)

    async def refused(self, headers: Mapping[str, str], seconds: float) -> None:
        """The provider wants to be left alone for so long: everybody waits."""
        await self._tell(headers, round(seconds * 1_000_000), 0)

    async def _tell(self, headers: Mapping[str, str], wait_us: int, well: int) -> None:
        numbers = [*_limits(headers), wait_us, well]
        await self._pipe.run(TOLD, ([self._name], [str(number) for number in numbers]))

    async def _serve(self) -> None:
        """Grants turns until nobody waits."""
        try:
            while self._waiting:
                granted, wait = await self._ask()
                for _ in range(granted):
                    self._grant()
                if self._waiting:
                    await asyncio.sleep(min(LONGEST, max(wait / 1_000_000, 0.001)))
        except Unavailable as error:
            while self._waiting:
                if not (one := self._waiting.popleft()).done():
                    one.set_exception(error)

    async def _ask(self) -> tuple[int, int]:
        tokens = (str(round(self._inputs)), str(round(self._outputs)))
        args: list[str | bytes] = [str(len(self._waiting)), *tokens, str(self._untold), str(round(EARLY * 1_000_000))]
        granted, wait = await self._pipe.run(PACE, ([self._name], args))
        return int(granted), int(wait)

    def _grant(self) -> None:
        while self._waiting:
            if not (
                one := self._waiting.popleft()
            ).done():  # else its call was cancelled, and its turn is the next one's
                return one.set_result(None)
        return None


def _limits(headers: Mapping[str, str]) -> list[int]:
    """Requests, input and output tokens a minute; 0 where nothing readable was told."""
    told = (headers.get(f"anthropic-ratelimit-{name}-limit", "") for name in LIMITS)
    return [int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0 for text in told]


def _smooth(mean: float, value: int) -> float:
    return value if not mean else 0.9 * mean + 0.1 * value
