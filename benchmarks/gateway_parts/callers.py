"""Callers who also leave, in a process of their own: `python -m benchmarks.gateway_parts.callers PLAN` (JSON).

They write what became of each call that has a request id to the file `told`, one line each: `delivered` for an answer
that came whole, with what it said; `left` for a stream that began with status 200 and of which the caller did not see
the end, because it went or because somebody died.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from typing import Any, TextIO

import aiohttp
import orjson

from benchmarks.ledger_parts import load

LEAVES = 0.1  # of the streams: their caller goes after the first bytes
IMPATIENT = 0.03  # of all calls: their caller goes within a few milliseconds, wherever the call is then
PAUSE = 0.02  # seconds after a call that was refused or broke
UNREACHABLE_PAUSE = 0.1

STREAM = {"stream": True, "stream_options": {"include_usage": True}}
BROKEN = (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError)


class Callers:
    def __init__(self, plan: dict[str, Any], told: TextIO) -> None:
        self.url = f"http://127.0.0.1:{plan['port']}/v1/chat/completions"
        self.headers = {"authorization": f"Bearer {plan['key']}", "content-type": "application/json"}
        self.key_id = plan["key"].split("_")[2]
        self.calls, self.told, self.pause = plan["calls"], told, plan["pause"]
        self.made, self.ends = 0, Counter[str]()

    async def run(self, clients: int) -> None:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            await asyncio.gather(*(self.client(session) for _ in range(clients)))

    async def client(self, session: aiohttp.ClientSession) -> None:
        while self.made < self.calls:
            self.made += 1
            end = await self.call(session, random.random() < 0.5)
            self.ends[end] += 1
            if end == "unreachable":
                self.made -= 1
                await asyncio.sleep(UNREACHABLE_PAUSE)
            else:
                await asyncio.sleep(self.pause if end in ("delivered", "left", "impatient") else PAUSE)

    async def call(self, session: aiohttp.ClientSession, stream: bool) -> str:
        """How it ended."""
        wait = random.uniform(0.0005, 0.01) if random.random() < IMPATIENT else 60.0
        try:
            async with asyncio.timeout(wait):
                return await self.ask(session, stream)
        except TimeoutError:
            return "impatient"
        except aiohttp.ClientConnectorError:
            return "unreachable"
        except BROKEN as error:
            return type(error).__name__

    async def ask(self, session: aiohttp.ClientSession, stream: bool) -> str:
        body = orjson.dumps(load.QUESTION | (STREAM if stream else {}))
        async with session.post(self.url, data=body, headers=self.headers) as reply:
            if reply.status != 200:
                return str(reply.status)
            if not stream:
                return self.delivered(load.read(orjson.loads(await reply.read())))
            try:
                if random.random() < LEAVES:
                    await reply.content.readany()
                    reply.close()
                    return self.left(reply, "left")
                return self.delivered(load.read_stream(await reply.read()))
            except (*BROKEN, asyncio.CancelledError):
                self.left(reply, "broken off")
                raise

    def delivered(self, answer: load.Answer) -> str:
        self.note("delivered", answer.request_id, answer.inputs, answer.outputs)
        return "delivered"

    def left(self, reply: aiohttp.ClientResponse, how: str) -> str:
        self.note("left", reply.headers["x-request-id"], 0, 0)
        return how

    def note(self, end: str, request_id: str, inputs: int, outputs: int) -> None:
        self.told.write(f"{end}\t{request_id}\t{self.key_id}\t{inputs}\t{outputs}\n")


def main(path: str) -> None:
    import uvloop

    with open(path) as file:
        plan = json.load(file)
    with open(plan["told"], "a", buffering=1) as told:
        callers = Callers(plan, told)
        uvloop.run(callers.run(plan["clients"]))
    print(json.dumps({"made": callers.made, "ends": callers.ends}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
