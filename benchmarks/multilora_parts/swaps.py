"""Hot loads and unloads on two replicas under traffic, by the product: does any answer come from another adapter, or
none at all?

All calls go through the gateway; adapters come and go by the registry, and an agent beside each engine drains, loads,
probes and unloads. Every answer is compared with what transformers and PEFT make of the same adapter, token for token.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ledger_parts import serving
from benchmarks.ledger_parts.stand import Stand, free_port, listens, say, until
from benchmarks.multilora_parts import agents, engines, tenants
from inference.tests.tiny import RANK, WORDS, Alone

REPLICAS, STREAMS, TOKENS = 2, 4, 24
STAYING = ("a0", "a1", "a2")  # asked all the time
COMING = ("a3", "a4")  # the files of those that come and go
EXTRA = "return_token_ids"  # vLLM's own field: which tokens its text is made of


@contextmanager
def replicas(ground: Stand, base: Path) -> Iterator[None]:
    """Engines with the same base model, each with its agent; started one after the other: two cores load one sooner."""
    with ExitStack() as stack:
        options = ("--tenants", "3", "--max-lora-rank", str(RANK))
        for number in range(REPLICAS):
            name = f"replica-{number}"
            running = engines.running(ground, name, base, *options, VLLM_CPU_OMP_THREADS_BIND=core(number))
            engine = stack.enter_context(running)
            stack.enter_context(agents.beside(ground, name, engine))
        yield


def core(number: int) -> str:
    """One for each replica: two that share their threads' cores wait for each other nearly all the time."""
    cores = sorted(os.sched_getaffinity(0))
    return str(cores[number % len(cores)])


class Traffic:
    """Streams that ask `models`, by the files they have, over and over and count what comes back."""

    def __init__(self, url: str, key: str, models: dict[str, str], alone: Alone) -> None:
        self.url, self.key, self.alone, self.counts = url, key, alone, Counter[str]()
        self._models = sorted(models.items())
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
            name, adapter = self._models[turn % len(self._models)]
            self.check(name, adapter, WORDS[turn % len(WORDS)])

    def check(self, name: str, adapter: str, text: str) -> None:
        """Asks `name`, which has the files of `adapter`, and counts the answer as right, wrong or failed."""
        import httpx2

        try:
            got = stream(self.url, self.key, name, text)
        except (httpx2.HTTPError, ValueError, LookupError) as error:
            say(f"{name}: {error}")
            self.counts["failed"] += 1
            return
        self.counts["right" if got == self.alone.answer(adapter, text, TOKENS)[0] else "wrong"] += 1


def measure(ground: Stand, base: Path, paths: dict[str, Path], alone: Alone, swaps: int) -> dict[str, Any]:
    """So many loads and as many unloads, each adapter on every replica."""
    for adapter, text in itertools.product(paths, WORDS):
        alone.answer(adapter, text, TOKENS)  # known before the threads ask
    port = free_port()
    with replicas(ground, base):
        tenant, key = tenants.tenant(base, EXTRA)
        staying = {str(tenants.wanted(tenant, name, paths[name])): name for name in STAYING}
        agents.answering(list(tenant.adapters.all()), REPLICAS)
        gateway = serving.gateway(ground, port)
        until(partial(listens, port), "The gateway does not start", 60, gateway.log)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with Traffic(url, key, staying, alone) as traffic:
            for number in range(swaps // REPLICAS):
                swap(traffic, tenant, number, paths)
                if not (number + 1) % 10:
                    say(f"{(number + 1) * REPLICAS} loads and unloads")
        gateway.end()
    total = traffic.counts
    say(f"{swaps} loads and unloads on {REPLICAS} replicas, {sum(total.values())} answers: {dict(total)}")
    return {"wrong_adapter": total["wrong"], "failed": total["failed"], "answers": sum(total.values()), "swaps": swaps}


def swap(traffic: Traffic, tenant: Any, number: int, paths: dict[str, Path]) -> None:
    """Has an adapter loaded under a new name on every replica, asks it, and has it unloaded."""
    from inference import registry

    files = COMING[number % len(COMING)]
    adapter = tenants.wanted(tenant, f"swap-{number}", paths[files])
    agents.answering([adapter], REPLICAS)
    for text in WORDS[:REPLICAS]:
        traffic.check(str(adapter), files, text)
    registry.unload(adapter)
    agents.gone(adapter)


def stream(url: str, key: str, model: str, text: str) -> list[int]:
    """The token ids of a greedy answer, from a stream; raises ValueError where it breaks off."""
    import httpx2

    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": TOKENS}
    found: list[int] = []
    more: dict[str, Any] = {"stream": True, EXTRA: True}
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.stream("POST", url, json=body | more, headers=headers, timeout=engines.ASK) as response:
        if response.status_code != 200:
            raise ValueError(f"{response.status_code} {response.read()[:300]!r}")
        lines: Sequence[str] = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        raise ValueError("the stream broke off")
    for line in lines[:-1]:
        for choice in json.loads(line)["choices"]:
            found += choice.get("token_ids") or []
    return found
