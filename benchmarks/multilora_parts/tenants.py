"""Five tenants, each with an adapter of its own, through the product's gateway: alone, then 16 at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ledger_parts import serving
from benchmarks.ledger_parts.stand import Stand, free_port, listens, say, until
from benchmarks.multilora_parts import agents
from inference.engines.client import Engine
from inference.tests.tiny import CONTEXT, WORDS

CALLERS, TOKENS = 16, 48
MODEL = "ses-v1"
Told = tuple[str, tuple[str, ...]]


class Caller(NamedTuple):
    adapter: str
    key: str


def measure(ground: Stand, base: Path, paths: dict[str, Path], engine: Engine, rounds: int) -> dict[str, Any]:
    """`multilora_equal`: every answer among 16 at a time is, token for token, that of the same call alone."""
    from inference import registry
    from inference.models import Adapter

    callers = people(base, paths)
    port = free_port()
    with agents.beside(ground, "engine", engine):
        agents.answering(list(Adapter.objects.all()), 1)
        gateway = serving.gateway(ground, port)
        until(partial(listens, port), "The gateway does not start", 60, gateway.log)
        wanted = [(caller, text) for text in WORDS for caller in callers]
        ask = partial(tell, f"http://127.0.0.1:{port}/v1/chat/completions")
        alone = {(caller, text): ask(caller, text) for caller, text in wanted}
        differ = len({alone[caller, WORDS[0]] for caller in callers})
        took, got = together(ask, wanted * rounds)
        wrong = sum(told != alone[asked] for asked, told in zip(wanted * rounds, got, strict=True))
        made = sum(len(tokens) for _, tokens in got)
        say(f"{len(got)} calls of {len(callers)} tenants, {CALLERS} at a time: {wrong} differ from the same alone")
        gateway.end()
        for adapter in Adapter.objects.all():
            registry.unload(adapter)
            agents.gone(adapter)
    return {
        "multilora_equal": int(not wrong and differ == len(callers)),
        "throughput_tokens_s": round(made / took, 1),
        "calls": len(got),
        "different": wrong,
    }


def people(base: Path, paths: dict[str, Path]) -> list[Caller]:
    """A tenant with a signed adapter that is to be loaded for each of `paths`."""
    found = []
    for name, path in paths.items():
        made, key = tenant(base)
        wanted(made, "ses", path)
        found.append(Caller(name, key))
    return found


def tenant(base: Path, *extras: str) -> tuple[Any, str]:
    """One whose calls may have these fields of the engine's own, and its key."""
    from benchmarks.ledger_parts import cast
    from inference import extras as fields
    from inference import registry
    from tenants.models import Tenant

    cast.priced_model()
    registry.enter_base(cast.MODEL, str(base), context_tokens=CONTEXT)
    (account,) = cast.accounts(1)
    made = Tenant.objects.get(pk=account.tenant)
    fields.open_(made, extras, None)
    return made, account.text


def wanted(tenant: Any, name: str, path: Path) -> Any:
    """The adapter with the files in `path`, signed, registered, and to be loaded from now on."""
    from attestation import statements
    from benchmarks.ledger_parts import cast
    from inference import registry

    statement = statements.sign_directory(str(tenant.pk), statements.ADAPTER, f"{tenant.slug}/{name}", path, {})
    return registry.load(registry.register(tenant, name, registry.base_model(cast.MODEL), path, statement, {}))


def together(ask: Callable[..., Told], wanted: Sequence[tuple[Caller, str]]) -> tuple[float, list[Told]]:
    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as pool:
        got = list(pool.map(lambda pair: ask(*pair), wanted))
    return time.monotonic() - began, got


def tell(url: str, caller: Caller, text: str) -> Told:
    """The answer's text and its tokens."""
    import httpx2

    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    body |= {"temperature": 0, "max_tokens": TOKENS, "logprobs": True}
    answer = httpx2.post(url, json=body, headers={"Authorization": f"Bearer {caller.key}"}, timeout=120)
    answer.raise_for_status()
    choice = answer.json()["choices"][0]
    return choice["message"]["content"], tuple(token["token"] for token in choice["logprobs"]["content"])
