"""How many tokens a request has, and which of them the prompt cache holds.

A text's tokens are its UTF-8 bytes / 3, rounded up: a measure that anybody can repeat. Caching after Anthropic's page
"Prompt caching": the prefix up to a block with `cache_control` is stored for 5 minutes or an hour and read again by
whoever sends the same prefix to the same model; a prefix below the model's least length is not cached, silently.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson

TTL = {"5m": 300.0, "1h": 3_600.0}  # seconds


def count(text: str | bytes) -> int:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return -(-len(data) // 3)


@dataclass(frozen=True)
class Block:
    """A piece of a request in the order in which it is read: tools, system, messages. `ttl` is "" without caching."""

    data: bytes
    tokens: int
    ttl: str
    role: str = ""


def blocks(body: dict[str, Any]) -> list[Block]:
    """The blocks of a checked request. A top-level `cache_control` counts for the last one."""
    found = [_block(tool, orjson.dumps(tool)) for tool in body.get("tools") or ()]
    found += [_block(part, _data(part)) for part in parts(body.get("system") or [])]
    config = body.get("output_config") or {}
    if config.get("format"):
        found.append(_block({}, orjson.dumps(config["format"])))
    for message in body["messages"]:
        found += [_block(part, _data(part), message["role"]) for part in parts(message["content"])]
    if body.get("cache_control") and found:
        last = found[-1]
        found[-1] = Block(last.data, last.tokens, body["cache_control"].get("ttl", "5m"), last.role)
    return found


def parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`content` or `system` as a list of blocks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _data(part: dict[str, Any]) -> bytes:
    if part.get("type") == "text":
        text: str = part["text"]
        return text.encode("utf-8", "surrogatepass")
    return orjson.dumps(part)


def _block(part: dict[str, Any], data: bytes, role: str = "") -> Block:
    control = part.get("cache_control") or {}
    return Block(data, count(data), control.get("ttl", "5m") if control else "", role)


@dataclass(frozen=True)
class Usage:
    """Tokens of one call; all four kinds of input together are what was sent."""

    input: int
    read: int
    write_5m: int
    write_1h: int
    output: int = 0

    @property
    def total_input(self) -> int:
        return self.input + self.read + self.write_5m + self.write_1h


@dataclass
class Cache:
    """Prefixes that are kept: until when, from when on. An entry can be read once its writer has been answered."""

    kept: dict[bytes, tuple[float, float, float]] = field(default_factory=dict)  # digest: from, until, ttl

    def take(self, model: str, found: list[Block], least: int, now: float, ready: float) -> Usage:
        """What this request reads and writes; `ready` is when its own entries can be read, `now` in seconds."""
        marks = _marks(model, found, least)
        read = before = self._read(marks, now)
        written = {"5m": 0, "1h": 0}
        for tokens, digest, ttl in marks:
            if tokens > before:
                written[ttl] += tokens - before
                before = tokens
                if self.kept.get(digest, (0.0, 0.0, 0.0))[1] <= now:  # a writer that came before is ready before
                    self.kept[digest] = (ready, ready + TTL[ttl], TTL[ttl])
        return Usage(sum(block.tokens for block in found) - before, read, written["5m"], written["1h"])

    def _read(self, marks: list[tuple[int, bytes, str]], now: float) -> int:
        """Tokens of the longest prefix that is kept; reading it keeps it for as long again."""
        for tokens, digest, _ttl in reversed(marks):
            since, until, life = self.kept.get(digest, (0.0, 0.0, 0.0))
            if since <= now < until:
                self.kept[digest] = (since, now + life, life)
                return tokens
        return 0


def _marks(model: str, found: list[Block], least: int) -> list[tuple[int, bytes, str]]:
    """The cacheable prefixes of a request, shortest first: tokens up to there, digest, ttl."""
    if not any(block.ttl for block in found):
        return []
    digest, tokens, marks = hashlib.sha256(model.encode()), 0, []
    for block in found:
        digest.update(b"%d %s " % (len(block.data), block.role.encode()) + block.data)
        tokens += block.tokens
        if block.ttl and tokens >= least:
            marks.append((tokens, digest.digest(), block.ttl))
    return marks
