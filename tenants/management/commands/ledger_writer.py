"""`manage.py ledger_writer`: the process that keeps the ledger. SIGTERM and SIGINT end it between two batches."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from tenants import counters
from tenants.ledger import rebuild
from tenants.ledger.writer import Writer


class Command(BaseCommand):
    help = "Write usage events from the stream to the ledger until stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--adopt", action="store_true", help="take over a Redis that carries the mark of another installation"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["adopt"] and (mark := rebuild.adopt(counters.connect())):
            self.stdout.write(f"Taken over: the Redis of the installation {mark}.")
        writer = Writer(f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: writer.stop())
        self.stdout.write("The ledger writer listens.")
        self.stdout.flush()
        writer.run()
        self.stdout.write("The ledger writer has stopped.")
