"""Clients of the real gateway, in a process of their own: `python -m benchmarks.ledger_parts.load PLAN` (JSON).

They call until `calls` answers were delivered and the file `enough` is there, plain and streamed in turn, and write
each delivered answer to the file `told` as `request id, key id, input, output tokens`: what the ledger must agree with.
Keys come in `slots`: one that was refused for a while is replaced by the next, and each that is in use is printed.
Most calls go with the keys `steady`, if there are any.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import orjson

QUESTION = {"model": "demo-base", "messages": [{"role": "user", "content": "Merhaba"}], "max_tokens": 64}
LINGER = 1.5  # seconds that clients go on with a key that was refused


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller was told, whole."""

    request_id: str
    inputs: int
    outputs: int


class Refused(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


async def ask(session: aiohttp.ClientSession, url: str, key: str, stream: bool, **more: Any) -> Answer:
    """One call; raises Refused, aiohttp.ClientError or ValueError when the answer did not come whole."""
    body = QUESTION | more | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with session.post(f"{url}/v1/chat/completions", data=orjson.dumps(body), headers=headers) as reply:
        text = await reply.read()
        if reply.status != 200:
            raise Refused(reply.status)
        return read_stream(text) if stream else read(orjson.loads(text))


def read(data: Any) -> Answer:
    usage = data["usage"]
    return Answer(data["id"], usage["prompt_tokens"], usage["completion_tokens"])


def read_stream(text: bytes) -> Answer:
    events = text.strip().split(b"\n\n")
    if events[-1] != b"data: [DONE]":
        raise ValueError("the stream broke off")
    return read(orjson.loads(events[-2].removeprefix(b"data: ")))


class Load:
    def __init__(self, plan: dict[str, Any], told: TextIO) -> None:
        self.urls, self.calls, self.told, self.pause = plan["urls"], plan["calls"], told, plan["pause"]
        self.enough, self.steady = Path(plan["enough"]), plan["steady"]
        self.keys = list(plan["keys"])
        self.active: list[str] = []
        self.refused_at: dict[str, float] = {}
        self.delivered, self.ends = 0, Counter[str]()
        for _ in range(plan["slots"]):
            self.replace("")

    def replace(self, gone: str) -> None:
        """Takes the next key into the place of one that was refused for a while."""
        if gone in self.active:
            self.active.remove(gone)
        if self.keys:
            self.active.append(self.keys.pop(0))
            print(self.active[-1], flush=True)

    async def client(self, session: aiohttp.ClientSession) -> None:
        while (self.delivered < self.calls or not self.enough.exists()) and self.active:
            await asyncio.sleep(self.pause)
            key = random.choice(self.steady if self.steady and random.random() < 0.7 else self.active)
            try:
                answer = await ask(session, random.choice(self.urls), key, random.random() < 0.5)
            except Refused as refused:
                self.ends[str(refused.status)] += 1
                if refused.status == 401:
                    self.note_refusal(key)
                await asyncio.sleep(0.02 if refused.status in (401, 429) else 0.2)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError) as error:
                self.ends[type(error).__name__] += 1
                await asyncio.sleep(0.1)
            else:
                self.delivered += 1
                self.told.write(f"{answer.request_id}\t{key.split('_')[2]}\t{answer.inputs}\t{answer.outputs}\n")

    def note_refusal(self, key: str) -> None:
        if time.monotonic() - self.refused_at.setdefault(key, time.monotonic()) > LINGER and key in self.active:
            self.replace(key)

    async def run(self, clients: int) -> None:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            await asyncio.gather(*(self.client(session) for _ in range(clients)))


def main(path: str) -> None:
    import uvloop

    with open(path) as file:
        plan = json.load(file)
    with open(plan["told"], "a", buffering=1) as told:
        load = Load(plan, told)
        uvloop.run(load.run(plan["clients"]))
    print(json.dumps({"delivered": load.delivered, "not delivered": load.ends}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
