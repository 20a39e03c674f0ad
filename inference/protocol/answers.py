"""What engines answer, and how streams of events are cut and framed. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import Any

import orjson

MOST_REPORTED = 100_000_000  # tokens an engine may say it counted
DONE = b"data: [DONE]\n\n"


def usage_of(usage: Any) -> tuple[int, int, int] | None:
    """(input, output, cached input) tokens of an engine's report; None if it is none that can be believed."""
    if not isinstance(usage, dict):
        return None
    if type(usage.get("prompt_tokens")) is not int:
        return None  # a report without its counts would make an answer free
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    outputs = usage.get("completion_tokens")
    inputs, outputs, hit = usage["prompt_tokens"], 0 if outputs is None else outputs, 0 if cached is None else cached
    for count in (inputs, outputs, hit):
        if type(count) is not int or not 0 <= count <= MOST_REPORTED:
            return None
    return inputs, outputs, min(hit, inputs)


def frame(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class EventReader:
    """The data of each server-sent event of a byte stream, whatever way the bytes were cut; `done` at [DONE]."""

    def __init__(self) -> None:
        self._waiting = b""
        self.done = False

    def feed(self, data: bytes) -> list[bytes]:
        """Of the events that these bytes complete."""
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        found: list[bytes] = []
        for line in lines if not self.done else ():
            if line.startswith(b"data:"):
                told = line[5:].strip()
                if told == b"[DONE]":
                    self.done = True
                    break
                found.append(told)
        return found
