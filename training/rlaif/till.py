"""A run's money in the tenant's own ledger: what a call may cost is held there before it is sent, what it did cost is
booked after it was stored.

The rule: each call that was admitted ends as exactly one row, whoever dies. Until it is settled a call counts with all
that was reserved for it, so that one whose worker died is booked at that (`estimated`), and corrected if its answer was
stored after all. How holds, leases and events go is `inference.gateway.admission`'s business and that of the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.utils.translation import gettext as _

from inference import snapshots
from inference.gateway.admission import Counters
from tenants import metering
from tenants.models import NANO
from training.problems import Problem

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
PAUSES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # seconds behind each try with terms that were out of date


class BudgetReached(Problem):
    """The tenant's budget of this month has not enough left for the next call, so it is not made."""

    def __init__(self, budget_nano: int, used_nano: int) -> None:
        self.budget_nano, self.used_nano = budget_nano, used_nano
        words = {"budget": f"{budget_nano / NANO:.2f}", "used": f"{used_nano / NANO:.2f}"}
        super().__init__(
            _("Stopped at this month's budget of $%(budget)s ($%(used)s used or held): raise it and start again; "
              "what was paid for is kept.") % words
        )  # fmt: skip


class LedgerDown(Problem):
    def __init__(self) -> None:
        super().__init__(_("The ledger's counters do not answer, so nothing is sent. Start again when they do."))


@dataclass
class Open:
    """A call whose money is held; `inference.gateway.held.OpenCall`."""

    event: metering.Event
    terms: metering.Terms
    hold_nano: int
    tokens: int = 0

    def progress(self) -> tuple[int, int, int]:
        """All of what is held: a call that is lost may have cost it."""
        return 0, 0, self.hold_nano

    def stop(self, reason: str) -> None:
        """Its hold is gone, and it is on its way: what it costs is booked when it is settled."""


class Till:
    """Of one tenant, by its id. `start` and `close` frame its use; `in_thread` runs what asks the database."""

    def __init__(self, tenant: str, redis_url: str, in_thread: InThread) -> None:
        self.tenant, self._in_thread = tenant, in_thread
        self._counters = Counters(redis_url, _renewed)
        self._terms: metering.Terms | None = None

    @property
    def counters(self) -> Counters:
        return self._counters

    async def start(self) -> None:
        await self._read()
        self._counters.start()

    async def close(self) -> None:
        await self._counters.close()

    @property
    def day(self) -> str:
        """YYYY-MM-DD under which the next call is booked, in the tenant's time zone."""
        assert self._terms
        return self._terms.day

    async def hold(self, call: str, model: str, most_nano: int) -> str:
        """Holds `most_nano` for the call and answers the day that it is booked under. Raises BudgetReached, LedgerDown,
        and `inference.gateway.pipeline.Unavailable`."""
        for pause in PAUSES:
            assert self._terms
            terms = self._terms
            event = self._event(call, model, terms.day)
            verdict = await self._counters.admit(Open(event, terms, most_nano))
            if not verdict.reason:
                renewal = metering.renew([(call, 0, 0, most_nano)])
                await self._counters.pipe.run(metering.RENEW, renewal)
                return terms.day
            if verdict.reason == "refused":
                raise BudgetReached(verdict.limit, verdict.value)
            await asyncio.sleep(pause)
            await self._read()
        raise LedgerDown

    async def settle(self, call: str, model: str, day: str, cost_nano: int, usage: Mapping[str, int]) -> None:
        """Books what the call did cost. Twice is once."""
        inputs = sum(count for kind, count in usage.items() if kind != "output")
        facts = {
            "input_tokens": inputs,
            "cached_tokens": usage.get("cache_read", 0),
            "output_tokens": usage.get("output", 0),
            "cost_nano": cost_nano,
        }
        await self._counters.settle(self._event(call, model, day).ending("settled", **facts))

    async def release(self, call: str, model: str, day: str, why: str) -> None:
        """Ends a call that was not billed."""
        await self._counters.settle(self._event(call, model, day).ending("aborted", reason=why[:80]))

    def _event(self, call: str, model: str, day: str) -> metering.Event:
        served = f"anthropic/{model}"[:160]
        return metering.Event(call, self.tenant, "", day, "settled", model[:120], served, engine="anthropic")

    async def _read(self) -> None:
        self._terms, sequence = await self._in_thread(partial(snapshots.terms, self.tenant))
        self._counters.adopt(self._terms.mark, sequence)


async def _renewed(now_us: int, epochs: Mapping[str, int]) -> None:
    """Nothing ends here when a tenant's settings change."""
