"""`manage.py import_prices FILE`: brings the price book to what a file says; a second time changes nothing."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants.prices import pricebook


class Command(BaseCommand):
    help = "Import a price book (JSON, see data/prices.json); all of it or nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        try:
            outcome = pricebook.load(file)
        except pricebook.BadFile as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{outcome.made} new, {outcome.changed} changed, {outcome.same} as they were.")
