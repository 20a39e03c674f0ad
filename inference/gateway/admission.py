"""The gateway's side of admit, renew and settle. It fails closed, and it forgets no event before the ledger has it.

What a Redis that was lost took with it comes back from here: the highest number of steps that was seen shows the loss.
Every event is kept until it is booked; when a Redis has lost its mark, events and the holds of open calls go back to it
before the ledger rebuilds its counters from them, and events once more after that. The ledger knows which it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from inference.gateway.held import Kept, OpenCall
from inference.gateway.pipeline import Pipeline, Unavailable
from tenants import metering
from tenants.metering import Event, Verdict

log = logging.getLogger(__name__)
SETTLE_PAUSES = (0.1, 0.5, 2.0)  # seconds between attempts that an answer waits for
TICK = 1.0  # seconds between looks at what is booked, what was rebuilt and what could not be delivered
LONGEST_PAUSE = 2.0  # seconds between looks while Redis does not answer; the ledger's writer waits longer (`GRACE`)
MOST_KEPT = metering.LONGEST_STREAM + 50_000  # events and open calls borne in mind; with more nobody is admitted
CHUNK = 1000  # calls renewed by one command, events sent again in one pipeline
STATE = ("mark", "sequence", "booked")
RUN_ID = re.compile(rb"run_id:(\w+)")  # of `INFO server`
INSTALLATION = 32  # characters of a mark that stay when counters are rebuilt

Item = TypeVar("Item")
Renewed = Callable[[int, Mapping[str, int]], Coroutine[Any, Any, None]]


class Counters:
    """`renewed(now in us, epochs)` is told after each renewal, by Redis's clock and for the tenants of open calls."""

    def __init__(self, url: str, renewed: Renewed) -> None:
        self._pipe, self._renewed = Pipeline(url), renewed
        self._open: dict[str, tuple[OpenCall, int]] = {}  # with the instant of admission (us)
        self._kept: dict[str, Kept] = {}
        self._mark, self._seen, self._lost = "", 0, False
        self._forgotten = ""  # the mark of which a settlement has shown that steps are gone
        self._renew_at = 0.0  # monotonic
        self._server, self._era = b"", 0  # what was delivered in another era may be gone
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pipe(self) -> Pipeline:
        """The way to the same Redis, for what is not counted."""
        return self._pipe

    def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Ends; an event that cannot be delivered even now is left to its lease."""
        if self._keeping:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        with contextlib.suppress(Unavailable):
            await self._resend()
        await self._pipe.close()
        for kept in self._kept.values():
            if kept.place is None:
                log.error("Not delivered: %s. The ledger writer will book it as estimated.", kept.event.request_id)

    def adopt(self, mark: str, sequence: int) -> None:
        """The ledger vouches for the counters with this mark, of which it has seen so many steps."""
        if mark == self._mark:
            self._seen = max(self._seen, sequence)
        elif not _is_older(mark, self._mark):
            self._mark, self._seen, self._lost = mark, sequence, False
            self._doubt()

    async def admit(self, call: OpenCall) -> Verdict:
        """Takes the hold or says why not; raises Unavailable."""
        event, terms = call.event, call.terms
        if len(self._kept) + len(self._open) >= MOST_KEPT:
            return Verdict("backlog", 0, 0)
        seen = self._seen if terms.mark == self._mark else 0
        asked = self._pipe.run(metering.ADMIT, metering.admit(event, terms, call.hold_nano, call.tokens, seen))
        try:
            verdict = metering.verdict(await asked)
        except (Unavailable, asyncio.CancelledError) as error:
            # The step may run or have run all the same: release a hold that nobody will use.
            gone = isinstance(error, asyncio.CancelledError)
            self._pipe.spawn(self._release(event, "client_disconnected" if gone else "counters_unavailable"))
            raise
        if verdict.reason != "unmarked":
            self._saw(terms.mark, verdict.sequence)
        if not verdict.reason:
            self._open[event.request_id] = call, verdict.at_us
        return verdict

    async def settle(self, event: Event) -> None:
        """Sends the event; if Redis does not take it, goes on after this has returned, or was cancelled."""
        self._open.pop(event.request_id, None)
        kept = self._kept[event.request_id] = Kept(event)
        for pause in (*SETTLE_PAUSES, 0.0):
            try:
                if kept.place is None and not kept.sending:
                    await self._deliver(kept)
                return
            except Unavailable:
                await asyncio.sleep(pause)
        log.error("Could not settle %s yet; it is sent again until Redis takes it.", event.request_id)

    def knows(self, request_id: str, tenant: str) -> bool:
        """Whether it is a call of that tenant which the ledger may not have yet."""
        if request_id in self._open:
            return self._open[request_id][0].event.tenant == tenant
        kept = self._kept.get(request_id)
        return kept is not None and kept.event.tenant == tenant

    async def moment(self, tenant: str) -> tuple[int, int]:
        """Now by Redis's clock (us) and the tenant's epoch, 0 if Redis has none; raises Unavailable."""
        clock, epoch = await asyncio.gather(self._pipe.ask("TIME"), self._pipe.ask("HGET", metering.EPOCHS, tenant))
        return _us(clock), int(epoch or 0)

    async def _deliver(self, kept: Kept) -> None:
        """Raises Unavailable, also when the Redis that answers is another installation's."""
        kept.sending = True
        mark, seen, era = self._mark, self._seen, self._era
        try:
            settled = metering.settlement(await self._pipe.run(metering.SETTLE, metering.settle(kept.event, mark)))
        finally:
            kept.sending = False
        if settled.written < 0:
            log.error("The Redis that answers belongs to another installation.")
            raise Unavailable
        if era == self._era:  # else it goes again
            kept.place = metering.place(settled.entry)
            if settled.sequence <= seen and mark != self._forgotten:  # one of a thousand that go again tells
                self._forgotten = mark
                await self._unmark(mark)
            self._saw(mark, settled.sequence)

    async def _release(self, event: Event, reason: str) -> None:
        """Books nothing for a call that got nothing. Until a hold is found, it may still be on its way to Redis."""
        for pause in (*SETTLE_PAUSES, None):
            with contextlib.suppress(Unavailable):
                if await self._pipe.ask("HEXISTS", metering.HOLDS, event.request_id):
                    await self.settle(event.ending("aborted", reason=reason))
                    return
            if pause:
                await asyncio.sleep(pause)
        log.warning("No hold of %s was found to release.", event.request_id)

    async def _keep(self) -> None:
        """For as long as the gateway lives."""
        pause, self._renew_at = TICK, time.monotonic() + metering.RENEW_SECONDS
        with contextlib.suppress(Unavailable):
            await self._look()
        while True:
            await asyncio.sleep(min(pause, max(0.01, self._renew_at - time.monotonic())))
            try:
                if time.monotonic() >= self._renew_at:
                    await self._renew()
                    self._renew_at = time.monotonic() + metering.RENEW_SECONDS
                await self._look()
                await self._resend()
                pause = TICK
            except Unavailable:
                pause = min(pause * 2, LONGEST_PAUSE)
                self._renew_at = max(self._renew_at, time.monotonic() + pause)
            except Exception:
                log.exception("Renewals go on.")

    async def _renew(self) -> None:
        """Pushes the leases of all open calls on, with what each has sent so far."""
        calls = [call for call, _ in self._open.values()]
        if not calls:
            return
        tenants = list({call.event.tenant for call in calls})
        sent = [(call.event.request_id, *call.progress()) for call in calls]
        clock, epochs, *found = await asyncio.gather(
            self._pipe.ask("TIME"),
            self._pipe.ask("HMGET", metering.EPOCHS, *tenants),
            *(self._pipe.run(metering.RENEW, metering.renew(chunk)) for chunk in _chunks(sent)),
        )
        known = {tenant: int(epoch or 0) for tenant, epoch in zip(tenants, epochs, strict=True)}
        self._pipe.spawn(self._renewed(_us(clock), known))
        held = itertools.chain.from_iterable(found)
        await self._end_unheld([row for row, there in zip(sent, held, strict=True) if not int(there)])

    async def _end_unheld(self, sent: list[tuple[str, int, int, int]]) -> None:
        """Ends open calls that no hold stands for any more: what they go on to cost is in nobody's budget."""
        if not sent:
            return
        await self._look()  # a Redis that lost its counters gets them back, and they are held again
        again = await asyncio.gather(
            *(self._pipe.run(metering.RENEW, metering.renew(chunk)) for chunk in _chunks(sent)),
        )
        for (request_id, *_), there in zip(sent, itertools.chain.from_iterable(again), strict=True):
            if not int(there) and request_id in self._open:
                log.error("%s has lost its hold and ends.", request_id)
                self._open[request_id][0].stop("hold_lost")

    async def _look(self) -> None:
        """Did Redis start anew, were counters lost or rebuilt? Then everything goes again. What is booked is let go."""
        known, seen = self._mark, self._seen
        asked = (self._pipe.ask("INFO", "server"), self._pipe.ask("HMGET", metering.STATE, *STATE))
        info, state = await asyncio.gather(*asked)
        server = (RUN_ID.search(info) or [b"", b""])[1]
        mark, sequence, booked = ((part or b"").decode() for part in state)
        if self._server not in (b"", server):  # it may have come back without what it wrote last
            self._doubt()
            self._renew_at = 0.0
        self._server = server
        if mark and mark == known and int(sequence or 0) < seen:
            await self._unmark(mark)
            mark = ""
        if known and not mark:
            return await self._bring_back()
        if mark[:INSTALLATION] != self._mark[:INSTALLATION]:
            return None  # another's: what it says of entries is not about ours
        self.adopt(mark, int(sequence or 0))
        if booked and mark == self._mark:
            until = metering.place(booked)
            for request_id in [id_ for id_, kept in self._kept.items() if kept.place and kept.place <= until]:
                del self._kept[request_id]
        return None

    async def _bring_back(self) -> None:
        """Gives a Redis that lost its counters what it knew of our calls, so that the rebuilt ones have it in them."""
        if not self._lost:
            self._lost = True
            self._doubt()
        rows = [
            (id_, metering.hold_row(call.event, at_us, call.hold_nano, call.tokens, call.progress()))
            for id_, (call, at_us) in self._open.items()
        ]
        await asyncio.gather(*(self._pipe.run(metering.RESUME, metering.resume(chunk)) for chunk in _chunks(rows)))

    def _doubt(self) -> None:
        """Whether what was delivered is still there, nobody knows: all of it goes again."""
        self._era += 1
        for kept in self._kept.values():
            kept.place = None

    async def _unmark(self, mark: str) -> None:
        """Redis has forgotten steps that were seen, so it must admit nobody until the ledger has rebuilt it."""
        log.error("Redis has forgotten its last steps. The ledger writer rebuilds its counters.")
        await self._pipe.run(metering.UNMARK, metering.unmark(mark))

    async def _resend(self) -> None:
        """Sends what is not delivered; raises Unavailable."""
        waiting = [kept for kept in self._kept.values() if kept.place is None and not kept.sending]
        for chunk in _chunks(waiting):
            await asyncio.gather(*map(self._deliver, chunk))

    def _saw(self, mark: str, sequence: int) -> None:
        if mark == self._mark:
            self._seen = max(self._seen, sequence)


def _is_older(mark: str, known: str) -> bool:
    """Whether `mark` is an earlier generation of the same installation, or none."""
    installation, _, generation = mark.partition(":")
    known_installation, _, known_generation = known.partition(":")
    return not mark or (installation == known_installation and int(generation) < int(known_generation))


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _us(clock: tuple[int, int]) -> int:
    return int(clock[0]) * 1_000_000 + int(clock[1])
