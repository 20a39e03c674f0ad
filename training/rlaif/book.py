"""The calls of a run: reserved before they are sent, stored before they count, and never paid for twice.

A call's life: *reserved* (a row, the most it can cost, under the run's cap) -> held in the tenant's ledger -> *sent* ->
*answered* -> *stored* -> *counted* (the ledger books what it did cost). The rules: what is stored under a key is the
answer to that key for ever; a call that was in the air when its worker died stays charged with all that was reserved
for it and is asked again in a row of its own, so that the cap holds by the provider's bill; every write happens under
the job's claim, so that a worker which lost its job reserves nothing more.

Rows are written by one thread, many in one transaction (`clerk`).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from training.asking import Ask, Reply
from training.models import ProviderCall, RlaifRun
from training.problems import Problem
from training.quotes import CapReached
from training.rlaif.clerk import Clerk

State = ProviderCall.State
TRIES = 3  # of one request whose answer never came
Send = Callable[[Ask], Awaitable[Reply]]
Most = Callable[[Ask], int]


class Vanished(Problem):
    """The connection ended after the request was sent: the provider may have billed it."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(_("An answer did not arrive: %(why)s.") % {"why": why})


class Money(Protocol):
    """`till.Till`, as much of it as is needed here."""

    @property
    def day(self) -> str: ...

    async def hold(self, call: str, model: str, most_nano: int) -> str: ...
    async def settle(self, call: str, model: str, day: str, cost_nano: int, usage: Any) -> None: ...
    async def release(self, call: str, model: str, day: str, why: str) -> None: ...


class Book:
    """Those of one run, made inside its loop. `ask` is its recipe's `Asker`; `most` bounds what a request can cost."""

    def __init__(self, run: RlaifRun, clerk: Clerk, money: Money, send: Send, most: Most, cap_nano: int) -> None:
        self.run, self.clerk, self.money, self.send, self.most, self.cap_nano = run, clerk, money, send, most, cap_nano
        self.charged_nano = 0  # what was billed or may have been, and what is reserved for calls in the air
        self.in_the_air = 0
        self._loop, self._freed = asyncio.get_running_loop(), asyncio.Event()
        self._asked: dict[str, asyncio.Task[Reply]] = {}
        self._counted: list[str] = []

    async def resume(self) -> None:
        """Takes over from a worker that is gone: its calls in the air are unknown, its stored ones are counted."""
        uncounted = await self.clerk.write(self._take_over)
        for call in uncounted:
            await self.money.settle(call.pk, call.model, call.day.isoformat(), call.cost_nano, call.usage)
        await self._count([call.pk for call in uncounted])

    async def ask(self, ask: Ask, prompt: int | None = None) -> Reply:
        """The stored answer, or a new one. The same request asked twice at once is sent once.

        Raises CapReached, till.BudgetReached, and the Problems of `send`.
        """
        task = self._asked.get(ask.key)
        if task is None:
            task = self._asked[ask.key] = asyncio.create_task(self._ask(ask, prompt))
            task.add_done_callback(lambda _: self._asked.pop(ask.key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Waits for what is in the air, because it is paid for, and books it."""
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        await self._count([])

    async def _ask(self, ask: Ask, prompt: int | None) -> Reply:
        for last in range(TRIES, 0, -1):
            found = await self._reserve(ask, prompt)
            if isinstance(found, Reply):
                return found
            try:
                return await self._pay(ask, found)
            except Vanished:
                if last == 1:
                    raise
        raise AssertionError("unreachable")

    async def _reserve(self, ask: Ask, prompt: int | None) -> Reply | ProviderCall:
        """Waits while calls in the air may give back what the cap lacks."""
        while True:
            self._freed.clear()
            try:
                found: Reply | ProviderCall = await self.clerk.write(lambda: self._find_or_reserve(ask, prompt))
                return found
            except CapReached:
                if not self.in_the_air:
                    raise
                await self._freed.wait()

    async def _pay(self, ask: Ask, call: ProviderCall) -> Reply:
        try:
            day = await self.money.hold(call.pk, call.model, call.reserved_nano)
        except Exception as error:
            await self._end(call, State.RELEASED, str(error))
            raise
        try:
            reply = await self.send(ask)
        except Vanished as problem:
            await self._end(call, State.UNKNOWN, problem.why)
            raise
        except Exception as error:
            await self._end(call, State.RELEASED, str(error))
            await self.money.release(call.pk, call.model, day, type(error).__name__)
            raise
        await self.clerk.write(lambda: self._store(call, reply, day))
        await self.money.settle(call.pk, call.model, day, reply.cost_nano, reply.usage)
        await self._count([call.pk], at_least=50)
        return _named(reply, call.pk)

    async def _end(self, call: ProviderCall, state: str, why: str) -> None:
        await self.clerk.write(lambda: self._close(call, state, why))

    async def _count(self, calls: Iterable[str], at_least: int = 1) -> None:
        """Notes that the ledger has them; not noting it costs a settlement that changes nothing."""
        self._counted += calls
        if len(self._counted) >= at_least:
            noted, self._counted = self._counted, []
            await self.clerk.write(lambda: ProviderCall.objects.filter(pk__in=noted).update(counted=True))

    # In the clerk's thread, inside its transaction.

    def _take_over(self) -> list[ProviderCall]:
        lost = self.run.calls.in_the_air().filter(batch=None)
        lost.update(state=State.UNKNOWN, why="its worker died")
        total = self.run.calls.charged().aggregate(cost=Sum("cost_nano"))["cost"] or 0
        unknown = self.run.calls.filter(state__in=[State.UNKNOWN, State.SENT])
        self.charged_nano = total + (unknown.aggregate(most=Sum("reserved_nano"))["most"] or 0)
        return list(self.run.calls.filter(state=State.STORED, counted=False))

    def _find_or_reserve(self, ask: Ask, prompt: int | None) -> Reply | ProviderCall:
        if reply := self._find(ask, prompt):
            return reply
        most = self.most(ask)
        if self.charged_nano + most > self.cap_nano:
            raise CapReached(self.cap_nano, self.charged_nano)
        call = self._row(ask, prompt, reserved_nano=most)
        call.save(force_insert=True)
        self.charged_nano += most
        self.in_the_air += 1
        return call

    def _find(self, ask: Ask, prompt: int | None) -> Reply | None:
        """What this run has stored, or another run of the tenant: that is paid for too."""
        stored = ProviderCall.objects.filter(tenant_id=self.run.tenant_id, key=ask.key, state=State.STORED)
        of_run = [call for call in stored.filter(run=self.run) if call.round == self.run.round or _reply(call).usable]
        if of_run:
            return _reply(of_run[-1])
        for other in stored.exclude(run=self.run).order_by("-stored_at")[:1]:
            if _reply(other).usable:
                return _reply(self._reuse(other, ask, prompt))
        return None

    def _reuse(self, other: ProviderCall, ask: Ask, prompt: int | None) -> ProviderCall:
        call = self._row(ask, prompt, reserved_nano=0)
        for name in ("text", "stop_reason", "answered_by", "usage", "provider_request", "api_version"):
            setattr(call, name, getattr(other, name))
        call.state, call.counted, call.stored_at = State.STORED, True, timezone.now()
        call.reused_from = other.reused_from or other.pk
        call.save(force_insert=True)
        return call

    def _row(self, ask: Ask, prompt: int | None, reserved_nano: int) -> ProviderCall:
        return ProviderCall(
            id=f"call_{uuid.uuid4().hex}",
            run=self.run,
            tenant_id=self.run.tenant_id,
            prompt_id=prompt,
            key=ask.key,
            round=self.run.round,
            purpose=ask.purpose,
            provider=ask.provider,
            model=ask.model,
            request_digest=ask.digest,
            reserved_nano=reserved_nano,
            day=self.money.day,
        )

    def _store(self, call: ProviderCall, reply: Reply, day: str) -> None:
        call.state, call.stored_at, call.day = State.STORED, timezone.now(), day
        call.cost_nano, call.usage = reply.cost_nano, dict(reply.usage)
        call.text, call.stop_reason, call.answered_by = reply.text, reply.stop_reason, reply.model
        call.provider_request, call.api_version = reply.request_id, reply.api_version
        call.save()
        self._free(call.reserved_nano - reply.cost_nano)

    def _close(self, call: ProviderCall, state: str, why: str) -> None:
        call.state, call.why = state, why[:300]
        call.save(update_fields=["state", "why"])
        self._free(call.reserved_nano if state == State.RELEASED else 0)

    def _free(self, nano: int) -> None:
        self.charged_nano -= nano
        self.in_the_air -= 1
        self._loop.call_soon_threadsafe(self._freed.set)


def _reply(call: ProviderCall) -> Reply:
    return Reply(
        call.text, call.stop_reason, call.answered_by, call.provider_request, call.usage, call.cost_nano, call.pk,
        call.api_version,
    )  # fmt: skip


def _named(reply: Reply, call: str) -> Reply:
    return replace(reply, call=call)
