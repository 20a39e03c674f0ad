"""Replays a tenant's last days against proposed limits, a budget or prices, and says what it cannot know."""

from __future__ import annotations

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from tenants import costs, metering
from tenants.costs import backtest
from tenants.models import NANO, Tenant


class Command(BaseCommand):
    help = "What proposed limits, a budget or prices would have done to a tenant's last days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tenant", help="its slug")
        parser.add_argument("--days", type=int, default=7)
        for name in metering.LIMITS:
            parser.add_argument(f"--{name.replace('_', '-')}", type=int)
        parser.add_argument("--key", default="", help="the id of the key that the limits are for; default: the tenant")
        parser.add_argument("--budget", help="dollars a month")
        for name in ("input", "output", "cached"):
            parser.add_argument(f"--{name}-price", help="dollars a million tokens")
        parser.add_argument("--model", default="", help="the model that the prices are for; default: every model")
        parser.add_argument("--most-rows", type=int, default=backtest.MOST_ROWS)

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = Tenant.objects.filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        proposal = backtest.Proposal(
            limits=tuple(options[name] for name in metering.LIMITS),
            key=options["key"],
            budget_nano=nano(options["budget"]),
            input_nano_per_mtok=nano(options["input_price"]),
            output_nano_per_mtok=nano(options["output_price"]),
            cached_nano_per_mtok=nano(options["cached_price"]),
            model=options["model"],
        )
        try:
            result = backtest.run(tenant, proposal, options["days"], max(1, options["most_rows"]))
        except backtest.BadProposal as error:
            raise CommandError(str(error)) from error
        for line in report(result, tenant):
            self.stdout.write(line)


def nano(text: str | None) -> int | None:
    """Dollars as nano-dollars; raises CommandError."""
    if text is None:
        return None
    try:
        amount = Decimal(text) * NANO
        if amount == int(amount):
            return int(amount)
    except (InvalidOperation, ValueError, OverflowError):
        pass
    raise CommandError(f"{text!r} is no amount of dollars with at most 9 decimals.")


def report(result: backtest.Result, tenant: Tenant) -> list[str]:
    """The result in lines."""
    lines = [
        f"{tenant.slug}: {result.calls} calls from {result.since} to {result.until:%Y-%m-%d %H:%M} UTC",
        f"refused: {result.refusals} ({100 * result.share:.2f} %)",
        *(f"  {scope} {limit}: {n}" for (scope, limit), n in result.refused.most_common()),
        *(f"budget of {month} first refuses at {at:%Y-%m-%d %H:%M:%S} UTC" for month, at in result.reached.items()),
        f"cost: ${costs.dollars(result.cost)} of the calls that pass, ${costs.dollars(result.cost_of_all)} of all, "
        f"${costs.dollars(result.booked)} as booked",
        f"refused at the time, not in the replay: {result.refused_then}",
    ]
    if result.cut:
        lines.append("The replay stopped at its bound of rows: --most-rows raises it.")
    return [*lines, *(f"note: {caveat}" for caveat in backtest.CAVEATS)]
