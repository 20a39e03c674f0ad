"""Hot loads and unloads on replicas under traffic: does any answer come from another adapter, or none at all?

The engine's side: traffic goes to the replicas themselves. Every answer is compared with what transformers and PEFT
make of the same adapter, token for token; a fresh adapter is asked before anybody gets it, and drained before it goes.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ledger_parts.stand import Stand, say
from benchmarks.multilora_parts import engines
from inference.engines.client import Engine, EngineError
from inference.tests.tiny import RANK, WORDS, Alone

REPLICAS, STREAMS, TOKENS = 2, 2, 24
STAYING = ("a0", "a1", "a2")  # asked all the time
COMING = ("a3", "a4")  # the files of those that come and go


@contextmanager
def replicas(ground: Stand, base: Path) -> Iterator[list[Engine]]:
    """Engines with the same base model, started one after the other: two cores load one at a time sooner."""
    with ExitStack() as stack:
        options = ("--tenants", "3", "--max-lora-rank", str(RANK))
        yield [
            stack.enter_context(
                engines.running(ground, f"replica-{number}", base, *options, VLLM_CPU_OMP_THREADS_BIND=core(number))
            )
            for number in range(REPLICAS)
        ]


def core(number: int) -> str:
    """One for each replica: two that share their threads' cores wait for each other nearly all the time."""
    cores = sorted(os.sched_getaffinity(0))
    return str(cores[number % len(cores)])


class Traffic:
    """Streams that ask `known` adapters over and over and count what comes back."""

    def __init__(self, engine: Engine, alone: Alone) -> None:
        self.engine, self.alone, self.counts = engine, alone, Counter[str]()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(STREAMS)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        for turn in itertools.count(number):
            if self._over.is_set():
                return
            adapter, text = STAYING[turn % len(STAYING)], WORDS[turn % len(WORDS)]
            self.check(adapter, adapter, text)

    def check(self, name: str, adapter: str, text: str) -> None:
        """Asks `name`, which has the files of `adapter`, and counts the answer as right, wrong or failed."""
        import httpx2

        try:
            got = stream(self.engine, name, text)
        except (EngineError, httpx2.HTTPError, ValueError, LookupError):
            self.counts["failed"] += 1
            return
        self.counts["right" if got == self.alone.answer(adapter, text, TOKENS)[0] else "wrong"] += 1


def measure(ground: Stand, base: Path, paths: dict[str, Path], alone: Alone, swaps: int) -> dict[str, Any]:
    """`swaps` loads and as many unloads, over the replicas in turn."""
    for adapter, text in itertools.product(paths, WORDS):
        alone.answer(adapter, text, TOKENS)  # known before the threads ask
    with replicas(ground, base) as found, ExitStack() as stack:
        for engine in found:
            for name in STAYING:
                engine.load(name, paths[name])
        traffic = [stack.enter_context(Traffic(engine, alone)) for engine in found]
        for number in range(swaps):
            swap(traffic[number % len(traffic)], number, paths)
            if not (number + 1) % 20:
                say(f"{number + 1} swaps")
    total = sum((one.counts for one in traffic), Counter[str]())
    say(f"{swaps} loads and unloads on {REPLICAS} replicas, {sum(total.values())} answers: {dict(total)}")
    return {"wrong_adapter": total["wrong"], "failed": total["failed"], "answers": sum(total.values()), "swaps": swaps}


def swap(traffic: Traffic, number: int, paths: dict[str, Path]) -> None:
    """Loads an adapter under a new name, asks it, and unloads it once its answers are there."""
    adapter, name = COMING[number % len(COMING)], f"swap-{number}"
    try:
        traffic.engine.load(name, paths[adapter])
        for text in WORDS[:2]:
            traffic.check(name, adapter, text)
        traffic.engine.unload(name)
    except EngineError:
        traffic.counts["failed"] += 1


def stream(engine: Engine, model: str, text: str) -> list[int]:
    """The token ids of a greedy answer, from a stream; raises ValueError where it breaks off."""
    import httpx2

    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": TOKENS}
    found: list[int] = []
    url = f"{engine.url}/v1/chat/completions"
    more: dict[str, Any] = {"stream": True, "return_token_ids": True}
    with httpx2.stream("POST", url, json=body | more, headers=engine.headers(), timeout=engine.timeout) as response:
        response.raise_for_status()
        lines: Sequence[str] = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        raise ValueError("the stream broke off")
    for line in lines[:-1]:
        for choice in json.loads(line)["choices"]:
            found += choice.get("token_ids") or []
    return found
