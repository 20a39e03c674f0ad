"""A finished message as the server-sent events of the Messages API."""

from __future__ import annotations

from typing import Any

import orjson

PIECE = 24  # characters of a delta
DELTAS = {"text": "text_delta", "thinking": "thinking_delta"}


def events(message: dict[str, Any]) -> list[bytes]:
    """`message_start`, the blocks, `message_delta` with usage and stop reason, `message_stop`."""
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "stop_details": None}
    start["usage"] = {**usage, "output_tokens": 1, "output_tokens_details": None}
    found = [_event("message_start", message=start)]
    for index, block in enumerate(message["content"]):
        found += _block(index, block)
    names = ("output_tokens", "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    ends = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    found.append(_event("message_delta", delta=ends, usage={name: usage[name] for name in names}))
    return [*found, _event("message_stop")]


def _block(index: int, block: dict[str, Any]) -> list[bytes]:
    kind = block["type"]
    text = block[kind]
    found = [_event("content_block_start", index=index, content_block={**block, kind: ""})]
    for at in range(0, len(text), PIECE):
        delta = {"type": DELTAS[kind], kind: text[at : at + PIECE]}
        found.append(_event("content_block_delta", index=index, delta=delta))
    return [*found, _event("content_block_stop", index=index)]


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))
