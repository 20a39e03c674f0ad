"""Embeddings: https://platform.openai.com/docs/api-reference/embeddings. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

from inference.protocol import fields
from inference.protocol.completions import count
from inference.protocol.request import Operation, Request

MOST_INPUTS = 2048  # of one call
FORWARDED = frozenset(("input", "encoding_format", "dimensions"))
UNDERSTOOD = FORWARDED | {"model", "user"}


def _nothing(choice: Any) -> str:
    return ""


def _no_delta(choice: Any) -> tuple[str, bool]:
    return "", False


EMBEDDING = Operation("/v1/embeddings", "embeddings", ("input",), _nothing, _no_delta, answers=False)


def parse(body: bytes) -> Request:
    """Reads an embeddings request; raises Refusal 400 that names the place."""
    data = fields.read_json(body)
    fields.check_names(data, UNDERSTOOD)
    return Request(
        operation=EMBEDDING,
        model=fields.typed(data, "model", str, ""),
        options={name: value for name, value in data.items() if name in FORWARDED and value is not None},
        digest=hashlib.sha256(body).hexdigest(),
        size=len(body),
        prompts=count(data, "input", MOST_INPUTS),
        user=fields.typed(data, "user", str, ""),
    )
