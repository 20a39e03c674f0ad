"""Calls of every kind through a gateway to a real engine, and what the ledger and the engine then say of them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inference import reconciliation
from inference.models import EngineReading
from inference.tests.conftest import Serving
from inference.tests.tiny import WORDS

LAG = reconciliation.LAG.total_seconds() + 0.2


def measure(serving: Serving) -> EngineReading:
    """A reading with nothing under way, compared."""
    serving.book()
    time.sleep(LAG)
    (reading,) = reconciliation.read()
    (compared,) = reconciliation.compare()
    assert compared.pk == reading.pk
    return compared


def calls(serving: Serving, key: str, models: list[str], rounds: int = 2) -> int:
    """Chats and completions, whole and streamed, cached and not, sixteen at a time; answers how many."""
    each: list[tuple[dict[str, Any], str]] = []
    for model in models:
        for text in WORDS:
            sizes = {"model": model, "max_tokens": 12}
            chat = {"messages": [{"role": "user", "content": text}]} | sizes
            plain = {"prompt": [text, text * 3]} | sizes
            each += [(chat | {"stream": stream}, "/chat/completions") for stream in (False, True)]
            each += [(plain | {"stream": stream, "logprobs": 1}, "/completions") for stream in (False, True)]
            each.append((chat | {"stop": ["a", "e", "k"], "temperature": 0}, "/chat/completions"))
    each *= rounds

    def ask(one: tuple[dict[str, Any], str]) -> None:
        answer = serving.post(key, json.dumps(one[0]).encode(), one[1])
        assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, each))
    return len(each)


def leave(serving: Serving, key: str, model: str) -> None:
    """A stream whose reader goes after three events."""
    body = {"model": model, "max_tokens": 400, "temperature": 1, "messages": [{"role": "user", "content": WORDS[0]}]}
    for number, _ in enumerate(serving.stream(key, body)):
        if number == 3:
            break
