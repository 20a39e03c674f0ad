"""`manage.py up`: every process of the embedded stack in the foreground, with one merged log."""

import os
import sys
import time
import webbrowser
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from paramstack_site import stack


class Command(BaseCommand):
    help = "Start web, gateway, workers, beat, ledger writer, engine and Redis, and show their merged log."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-open", action="store_true", help="do not open the console in a browser")

    def handle(self, *args: Any, no_open: bool, **options: Any) -> None:
        began = time.monotonic()
        with stack.start(echo=True) as running:
            running.wait_ready()
            print(f"\nReady after {time.monotonic() - began:.1f} s: {stack.address()}\nStop with Ctrl-C.\n", flush=True)
            if not no_open and sys.stdout.isatty() and has_screen():
                webbrowser.open(stack.address())
            running.stay()


def has_screen() -> bool:
    """Without one, `webbrowser` would open a text browser over the log."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
