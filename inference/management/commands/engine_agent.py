"""`manage.py engine_agent`: looks after the engine of this host; see `inference.agent`."""

from __future__ import annotations

import fcntl
import re
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from inference import replicas
from inference.agent import Agent, Fenced

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


class Command(BaseCommand):
    requires_system_checks = ()  # a start is not the moment
    help = "Load, probe and unload the adapters of the engine on this host, as the registry wants them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", default=settings.ENGINE_NAME, help="of the replica, in every ledger row")
        parser.add_argument("--url", default=settings.ENGINE_URL, help="where gateways reach the engine")
        parser.add_argument("--key-file", type=Path, default=settings.ENGINE_KEY_FILE)
        parser.add_argument("--cache", type=Path, help="a directory that the engine reads; default: below var/engine")

    def handle(self, *args: Any, name: str, url: str, key_file: Path, cache: Path | None, **options: Any) -> None:
        if not NAME.fullmatch(name):
            raise CommandError(f"--name {name!r}: letters, digits, '-', '_' and '.', 60 at most.")
        place = cache or settings.ENGINE_CACHE / name
        place.mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                agent = Agent(name, url.rstrip("/"), key_file, place)
                signal.signal(signal.SIGTERM, stop)
                agent.run()
            except BlockingIOError:
                raise CommandError(f"Another agent works in {place}. Give this one a --cache of its own.") from None
            except (replicas.Taken, Fenced) as error:
                raise CommandError(str(error)) from None
            except KeyboardInterrupt:
                return


def stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
