"""The models the server knows: prices, context, the least that is cached. Prices as published on `PRICES_OF`.

Where a write or read price was not published it follows the published multipliers (a 5-minute write 1.25 times the
input price, a 1-hour write twice, a read a tenth). Where the least cacheable length of a model was not published it is
that of the model before it in the same line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from training.loopback import wire

PRICES_OF = "2026-11-20"
LONG_PROMPT = 100_000  # input tokens; above it the whole request of a Haiku 5.5 costs five times as much


@dataclass(frozen=True)
class Model:
    """Prices in nano-dollars per token: $0.10 per million tokens are 100. `least` is in tokens."""

    id: str
    name: str
    created: str
    input: int
    output: int
    cache_read: int
    write_5m: int
    write_1h: int
    least: int
    context: int = 1_000_000
    most_output: int = 128_000
    lifecycle: str = "active"


MODELS = {
    model.id: model
    for model in (  # newest first, as the API lists them
        Model("claude-haiku-5-5", "Claude Haiku 5.5", "2026-10-07", 100, 500, 10, 125, 200, 4_096),
        Model("claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-09-28", 2_000, 10_000, 100, 2_500, 4_000, 1_024),
        Model("claude-opus-5-5", "Claude Opus 5.5", "2026-08-20", 4_000, 20_000, 200, 5_000, 8_000, 512),
        Model("claude-fable-5-1", "Claude Fable 5.1", "2026-07-15", 10_000, 50_000, 250, 12_500, 20_000, 512),
        Model(
            "claude-haiku-4-5", "Claude Haiku 4.5", "2025-10-01", 1_000, 5_000, 100, 1_250, 2_000, 4_096,
            200_000, 64_000, "deprecated",
        ),
    )
}  # fmt: skip


def find(name: object) -> Model:
    """The model of this name, with or without a date behind it. Raises Refused 404 for one that is not there."""
    model = MODELS.get(re.sub(r"-\d{8}$", "", name)) if isinstance(name, str) else None
    if model is None:
        raise wire.missing(f"model: {name}")
    return model


def described(model: Model) -> dict[str, Any]:
    """`ModelInfo` of the API."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": f"{model.created}T00:00:00Z",
        "lifecycle": model.lifecycle,
        "line": None,
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": model.context,
        "max_tokens": model.most_output,
        "capabilities": None,
    }


def page(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """One page of a list that is newest first: `limit` (20), `after_id`, `before_id`. Raises Refused."""
    limit = query.get("limit", "20")
    if not limit.isdigit() or not 1 <= int(limit) <= 1_000:
        raise wire.invalid("limit: Input should be between 1 and 1000")
    ids = [item["id"] for item in items]
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in ids:
            raise wire.invalid(f"{name}: no such object: {query[name]}")
    if "before_id" in query:
        end = ids.index(query["before_id"])
        start = max(0, end - int(limit))
        more = start > 0
    else:
        start = ids.index(query["after_id"]) + 1 if "after_id" in query else 0
        end = start + int(limit)
        more = end < len(items)
    found = items[start:end]
    ends = (found[0]["id"], found[-1]["id"]) if found else (None, None)
    return {"data": found, "has_more": more, "first_id": ends[0], "last_id": ends[1]}
