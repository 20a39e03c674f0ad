"""The end of Redis's append-only file: which file it is, taking a piece off, and which calls were settled in it."""

from __future__ import annotations

import re
import time
from pathlib import Path

EVENT = re.compile(rb'"request_id":"(req_[0-9a-f]+)"')


def newest(data: Path, least: int) -> Path:
    """The file that Redis appends to, once it has at least so many bytes: a rewrite begins a new, empty one."""
    while True:
        files = sorted(data.glob("appendonlydir/*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
        if files and files[-1].stat().st_size >= least:
            return files[-1]
        time.sleep(0.02)


def off(path: Path, count: int) -> bytes:
    """Cuts the last `count` bytes off; answers them."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - count))
        gone = file.read()
        file.truncate(max(0, size - count))
    return gone


def settled_in(tail: bytes) -> set[str]:
    """The calls whose event was appended to the stream in `tail`."""
    ids = set()
    for command in tail.split(b"\r\nXADD\r\n")[1:]:
        if found := EVENT.search(command.split(b"\r\n*", 1)[0]):
            ids.add(found[1].decode())
    return ids
