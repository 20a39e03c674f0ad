"""`manage.py ledger_writer`: the process that keeps the ledger. SIGTERM and SIGINT end it between two batches."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from django.core.management.base import BaseCommand

from tenants.writer import Writer


class Command(BaseCommand):
    help = "Write usage events from the stream to the ledger until stopped."

    def handle(self, *args: Any, **options: Any) -> None:
        writer = Writer(f"{socket.gethostname()}-{os.getpid()}")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: writer.stop())
        self.stdout.write("The ledger writer listens.")
        self.stdout.flush()
        writer.run()
        self.stdout.write("The ledger writer has stopped.")
