"""Prints the monthly statement of a tenant as JSON or CSV."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants import costs
from tenants.costs import statements
from tenants.models import Tenant


class Command(BaseCommand):
    help = "The monthly statement of a tenant."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", help="its slug")
        parser.add_argument("month", nargs="?", help="YYYYMM; default: this month")
        parser.add_argument("--csv", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        try:
            statement = statements.of(tenant, options["month"] or costs.this_month(tenant))
        except costs.NoSuchMonth as error:
            raise CommandError(str(error)) from error
        if options["csv"]:
            self.stdout.write("".join(statements.table(statement)), ending="")
        else:
            self.stdout.write(json.dumps(statement.plain(), ensure_ascii=False, indent=1))
