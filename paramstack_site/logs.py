"""The merged log: follows the log file of every program and prints each line behind the program's name."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

COLOURS = [36, 32, 33, 35, 34, 96, 92, 95]
# What the supervisor says of itself at every start; its own log file keeps it. (The socket's directory is private.)
SMALL_TALK = ("success: ", "RPC interface", "unix_http_server", "Set uid", "supervisord started")
PAUSE = 0.2  # seconds between two looks


class Follower:
    """Lines that are appended to `paths` from now on, also across rotation."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths
        self.files: dict[str, TextIO] = {}
        self.rest: dict[str, str] = {}
        for name, path in paths.items():
            if path.exists():
                self.files[name] = path.open(errors="replace")
                self.files[name].seek(0, os.SEEK_END)

    def lines(self) -> list[tuple[str, str]]:
        """(program, line) pairs written since the last call."""
        return [(name, line) for name in self.paths for line in self.fresh(name)]

    def fresh(self, name: str) -> list[str]:
        text = self.files[name].read() if name in self.files else ""
        if self.rotated(name):
            if name in self.files:
                self.files.pop(name).close()
            self.files[name] = self.paths[name].open(errors="replace")
            text += self.files[name].read()
        *lines, self.rest[name] = (self.rest.get(name, "") + text).split("\n")
        return lines

    def rotated(self, name: str) -> bool:
        """Whether the path leads to another file than the one that is open."""
        try:
            current = self.paths[name].stat().st_ino
        except FileNotFoundError:
            return False
        return name not in self.files or os.fstat(self.files[name].fileno()).st_ino != current

    def close(self) -> None:
        for file in self.files.values():
            file.close()


class Printer(threading.Thread):
    """Prints the merged log until `finish()`."""

    def __init__(self, paths: Mapping[str, Path], out: TextIO) -> None:
        super().__init__(name="merged-log", daemon=True)
        self.follower = Follower(paths)
        self.out = out
        self.width = max(map(len, paths))
        self.colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(paths)} if out.isatty() else {}
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(PAUSE):
            self.print()
        self.print()
        self.follower.close()

    def print(self) -> None:
        for name, line in self.follower.lines():
            if name == "supervisor" and any(words in line for words in SMALL_TALK):
                continue
            label = f"{name:<{self.width}} |"
            if name in self.colours:
                label = f"\033[{self.colours[name]}m{label}\033[0m"
            self.out.write(f"{label} {line}\n")
        self.out.flush()

    def finish(self) -> None:
        self.done.set()
        self.join()
