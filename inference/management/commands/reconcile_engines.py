"""Compares what the engines counted with what the ledger booked: `manage.py reconcile_engines`."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from inference import discrepancies, reconciliation
from inference.models import EngineReading

POLL_SECONDS = 0.2


class Command(BaseCommand):
    help = "Reads every engine's counters, waits for the calls of before, and compares; exits 1 where they differ."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", type=float, default=60, help="seconds for calls under way to end (60)")

    def handle(self, *args: Any, **options: Any) -> None:
        taken = {reading.pk for reading in reconciliation.read()}
        if not taken:
            raise CommandError("No engine says what it counted. Does one run, with an agent beside it?")
        deadline = time.monotonic() + options["wait"]
        while reconciliation.compare() or EngineReading.objects.filter(pk__in=taken, since=None).exists():
            if time.monotonic() > deadline:
                raise CommandError("Calls of before are under way or not booked yet. Does the ledger writer run?")
            time.sleep(POLL_SECONDS)
        rows = EngineReading.objects.filter(pk__in=taken).order_by("replica")
        for row in rows:
            self.stdout.write(f"{row.replica} {'agrees' if row.holds else 'DIFFERS'}, {discrepancies.sentence(row)}")
            for name, pair in row.allowed.items():
                self.stdout.write(f"    {name}: {pair[0]} + {pair[1]}")
        if not all(row.holds for row in rows):
            raise CommandError("The ledger and the engines do not agree.")
