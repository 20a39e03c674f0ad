"""What a loopback server is told: seed, limits, faults, money. Every rate is a share of calls from 0 to 1."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "sk-ant-api03-loopback-key-that-opens-nothing-else"


@dataclass(frozen=True)
class Options:
    """`credit_nano` and what is beyond it: see `bill`. A limit of 0 is none, and then no header speaks of it."""

    seed: int = 1
    latency_ms: int = 0
    calls_per_second: float = 1_000.0
    burst: int = 1_000  # calls that may come at once
    input_tokens_per_minute: int = 1_000_000_000
    output_tokens_per_minute: int = 1_000_000_000
    rate_limited: float = 0.0  # answered 429 although within the limits
    overloaded: float = 0.0  # 529
    server_error: float = 0.0  # 500
    unreadable: float = 0.0  # of verdicts: half are no JSON, half are cut at max_tokens
    refused: float = 0.0  # answered with stop_reason "refusal"
    slow: float = 0.0
    slow_ms: int = 5_000  # on top of the latency
    cut: float = 0.0  # billed, then the connection ends within the answer
    credit_nano: int | None = None  # None: endless
    credit_status: int = 400  # or 402: how an empty balance is reported
    spend_limit: str = ""  # enforced, contract or ramp: every call is refused for it
    always_first: bool = False  # a judge that prefers whatever it is shown first
    fresh_votes: bool = True  # the same question to a judge again is a new draw; False: the same verdict
    batch_delay_s: float = 0.0
    batch_expired: float = 0.0
    max_body: int = 32 * 1024 * 1024  # bytes; of a batch 256 MB
    refused_keys: list[str] = field(default_factory=list)
    closed_models: list[str] = field(default_factory=list)  # 403: this key may not use them
    cache_minimum: dict[str, int] = field(default_factory=dict)  # tokens by model, over the catalogue's


FIELDS = {one.name: one for one in dataclasses.fields(Options)}


def changed(options: Options, values: dict[str, Any]) -> Options:
    """`options` with `values` in it. Raises ValueError that names an unknown option or one of the wrong kind."""
    for name, value in values.items():
        if name not in FIELDS:
            raise ValueError(f"No option {name!r}. Choose from: {', '.join(FIELDS)}")
        if not _fits(getattr(Options(), name), value):
            raise ValueError(f"{name} cannot be {value!r}: {FIELDS[name].type}")
    return dataclasses.replace(options, **values)


def _fits(default: Any, value: Any) -> bool:
    if default is None:
        return value is None or type(value) is int
    return isinstance(value, int | float) if type(default) is float else type(value) is type(default)


def parse(words: list[str]) -> tuple[argparse.Namespace, Options]:
    """The command line: `--port`, `--host`, `--options FILE` (JSON) and a flag for each option, which wins."""
    parser = argparse.ArgumentParser(prog="python -m training.loopback", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one; it is printed")
    parser.add_argument("--options", type=Path, help="a JSON object of options")
    for name in FIELDS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=_value, dest=f"option_{name}", metavar="VALUE")
    told = parser.parse_args(words)
    values = json.loads(told.options.read_text()) if told.options else {}
    flags = {name: value for name in FIELDS if (value := getattr(told, f"option_{name}")) is not None}
    try:
        return told, changed(Options(), {**values, **flags})
    except ValueError as error:
        parser.error(str(error))


def _value(word: str) -> Any:
    """JSON where it is some, else the word itself."""
    try:
        return json.loads(word)
    except ValueError:
        return word
