"""Calls that are paid for once, under a cap that holds, in the tenant's own ledger. On a real database and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest

from inference.gateway.pipeline import Unavailable
from tenants import limits
from tenants.ledger import proof
from tenants.ledger.writer import Writer
from tenants.models import UsageEvent
from training import jobs
from training.asking import ANSWER, Ask, Reply
from training.models import Job, ProviderCall, RlaifRun
from training.problems import Problem
from training.quotes import CapReached
from training.rlaif.book import Book, Send, Vanished
from training.rlaif.clerk import Clerk
from training.rlaif.till import BudgetReached, Till

pytestmark = [pytest.mark.journey, pytest.mark.django_db(transaction=True)]
MOST, COST = 1_000, 300
State = ProviderCall.State
Do = Callable[[Book], Awaitable[Any]]


class Provider:
    """Answers everything for COST; `first` is what the first requests raise instead."""

    def __init__(self, *first: Exception) -> None:
        self.first = list(first)
        self.asked: list[str] = []
        self.billed = 0

    async def __call__(self, ask: Ask) -> Reply:
        self.asked.append(ask.key)
        await asyncio.sleep(0.01)
        if self.first:
            raise self.first.pop(0)
        self.billed += COST
        return Reply(f"Yanıt {ask.place}", usage={"input": 7, "output": 3}, cost_nano=COST, request_id="req_1")


def proved(writer: Writer) -> bool:
    taken = proof.take()
    writer.drain()
    return proof.wait(taken).holds


def question(number: int) -> Ask:
    turn = {"role": "user", "content": "Neden?"}
    return Ask(ANSWER, "claude", "claude-haiku-5-5", "Kısa.", [turn], 100, place=(number,))


@pytest.fixture
def books(cast, redis_url, dataset):
    """Redis as the ledger vouches for it."""
    writer = Writer("test")
    writer.drain()
    limits.set_budget(cast.acme, 1_000_000, cast.owner)
    writer.drain()
    yield writer
    writer.drain()


@pytest.fixture
def rlaif(cast, dataset, books) -> RlaifRun:
    return new_run(cast, dataset)


def new_run(cast, dataset, name="rlaif-0001") -> RlaifRun:
    job = jobs.enqueue(cast.acme, Job.Kind.RLAIF, cast.engineer)
    return RlaifRun.objects.create(tenant=cast.acme, name=name, dataset=dataset, job=job, config={})


def work(
    run: RlaifRun,
    provider: Send,
    do: Callable[[Book], Awaitable[Any]],
    redis_url: str,
    cap: int = 10**9,
    guard=nullcontext,
) -> Any:
    """A worker's life: it takes over, works and closes its books."""

    async def main() -> Any:
        clerk = Clerk(guard)
        till = Till(str(run.tenant_id), redis_url, clerk.read)
        await till.start()
        book = Book(run, clerk, till, provider, lambda ask: MOST, cap)
        try:
            await book.resume()
            return await do(book)
        finally:
            await book.close()
            await till.close()
            await clerk.close()

    return asyncio.run(main())


def all_of(*numbers: int) -> Callable[[Book], Awaitable[list[Any]]]:
    async def do(book: Book) -> list[Any]:
        return await asyncio.gather(*(book.ask(question(n)) for n in numbers), return_exceptions=True)

    return do


def test_what_is_stored_is_never_sent_again(rlaif, books, redis_url):
    provider = Provider()
    first = work(rlaif, provider, all_of(1, 2, 3, 2), redis_url)
    again = work(rlaif, provider, all_of(3, 2, 1), redis_url)
    assert [reply.text for reply in first] == [f"Yanıt ({n},)" for n in (1, 2, 3, 2)]
    assert again == [first[2], first[1], first[0]]
    assert len(provider.asked) == 3
    books.drain()
    booked = UsageEvent.objects.values_list("request_id", flat=True)
    assert sorted(booked) == sorted(rlaif.calls.values_list("pk", flat=True))
    row = UsageEvent.objects.latest("pk")
    assert (row.status, row.cost_nano, row.input_tokens, row.output_tokens) == ("settled", COST, 7, 3)
    assert (row.model, row.served, row.key_id) == ("claude-haiku-5-5", "anthropic/claude-haiku-5-5", None)
    assert set(rlaif.calls.values_list("state", "counted")) == {(State.STORED, True)}
    assert proved(books)


def test_the_cap_holds_though_everybody_asks_at_once_and_what_comes_cheaper_makes_room(rlaif, books, redis_url):
    provider = Provider()
    results = work(rlaif, provider, all_of(*range(20)), redis_url, cap=3_500)
    answered = [result for result in results if isinstance(result, Reply)]
    assert {type(result) for result in results} == {Reply, CapReached}
    assert len(answered) == (3_500 - MOST) // COST + 1  # the last one still could have cost MOST
    assert provider.billed == len(answered) * COST <= 3_500


def test_a_call_in_the_air_at_a_crash_stays_charged_and_is_asked_again(rlaif, books, redis_url):
    async def die(book: Book) -> Any:
        return await book._reserve(question(1), None)  # and nothing more: the worker is gone

    work(rlaif, Provider(), die, redis_url)
    provider = Provider()
    results = work(rlaif, provider, all_of(1), redis_url, cap=MOST + 500)
    assert isinstance(results[0], CapReached)  # the bill may have it
    assert provider.asked == []
    (reply,) = work(rlaif, provider, all_of(1), redis_url, cap=2 * MOST)
    assert reply.text
    assert sorted(rlaif.calls.values_list("state", flat=True)) == [State.STORED, State.UNKNOWN]


def test_what_was_stored_and_not_counted_is_counted_by_the_next_worker_once(rlaif, books, redis_url):
    async def die(book: Book) -> None:
        call = await book._reserve(question(1), None)
        assert isinstance(call, ProviderCall)
        day = await book.money.hold(call.pk, call.model, MOST)
        reply = await book.send(question(1))
        await book.clerk.write(lambda: book._store(call, reply, day))

    provider = Provider()
    work(rlaif, provider, die, redis_url)
    books.drain()
    assert not UsageEvent.objects.exists()
    work(rlaif, provider, all_of(1), redis_url)
    rlaif.calls.update(counted=False)  # it died once more, before it had noted that
    work(rlaif, provider, all_of(1), redis_url)
    books.drain()
    assert list(UsageEvent.objects.values_list("status", "cost_nano")) == [("settled", COST)]
    assert len(provider.asked) == 1
    assert proved(books)


def test_an_answer_that_vanished_is_charged_and_asked_for_again(rlaif, books, redis_url):
    provider = Provider(Vanished("reset"), Vanished("reset"))
    (reply,) = work(rlaif, provider, all_of(1), redis_url)
    assert reply.text
    assert sorted(rlaif.calls.values_list("state", "why")) == [
        (State.STORED, ""),
        (State.UNKNOWN, "reset"),
        (State.UNKNOWN, "reset"),
    ]


def test_after_three_answers_that_vanished_it_is_given_up(rlaif, books, redis_url):
    (result,) = work(rlaif, Provider(*[Vanished("reset")] * 3), all_of(1), redis_url)
    assert isinstance(result, Vanished)


def test_a_request_that_was_refused_costs_nothing(rlaif, books, redis_url):
    class Refused(Problem): ...

    results = work(rlaif, Provider(Refused("no"), RuntimeError("bug")), all_of(1, 2), redis_url, cap=2 * MOST)
    assert {type(result) for result in results} == {Refused, RuntimeError}
    assert set(rlaif.calls.values_list("state", "cost_nano")) == {(State.RELEASED, 0)}
    provider = Provider()
    assert all(isinstance(reply, Reply) for reply in work(rlaif, provider, all_of(1, 2), redis_url, cap=2 * MOST))
    books.drain()
    assert (
        sorted(UsageEvent.objects.values_list("status", "cost_nano")) == [("aborted", 0)] * 2 + [("settled", COST)] * 2
    )


def test_the_tenants_budget_stops_a_run_before_it_sends(rlaif, books, redis_url, cast):
    limits.set_budget(cast.acme, MOST - 1, cast.owner)
    books.drain()
    provider = Provider()
    (result,) = work(rlaif, provider, all_of(1), redis_url)
    assert isinstance(result, BudgetReached)
    assert provider.asked == []
    assert list(rlaif.calls.values_list("state", flat=True)) == [State.RELEASED]


def test_a_budget_that_is_changed_meanwhile_holds_from_the_next_call_on(rlaif, books, redis_url, cast):
    async def do(book: Book) -> list[Any]:
        first = await book.ask(question(1))
        await book.clerk.read(lambda: limits.set_budget(cast.acme, 0, cast.owner))
        await book.clerk.read(books.drain)
        return [first, *await asyncio.gather(book.ask(question(2)), return_exceptions=True)]

    first, second = work(rlaif, Provider(), do, redis_url)
    assert isinstance(first, Reply)
    assert isinstance(second, BudgetReached)


def test_another_runs_answer_to_the_same_request_is_used_and_nobody_elses(rlaif, books, redis_url, cast, dataset):
    provider = Provider()
    (paid,) = work(rlaif, provider, all_of(1), redis_url)
    second = new_run(cast, dataset, "rlaif-0002")
    (reused,) = work(second, provider, all_of(1), redis_url)
    assert (reused.text, reused.cost_nano) == (paid.text, 0)
    assert second.calls.get().reused_from == paid.call
    ProviderCall.objects.filter(run=rlaif).update(tenant=cast.globex)
    ProviderCall.objects.filter(run=second).delete()
    work(second, provider, all_of(1), redis_url)
    assert len(provider.asked) == 2


def test_a_refused_answer_is_asked_for_again_in_the_next_round_only(rlaif, books, redis_url):
    async def refusing(ask: Ask) -> Reply:
        return Reply("", "refusal", cost_nano=COST)

    work(rlaif, refusing, all_of(1), redis_url)
    provider = Provider()
    (still,) = work(rlaif, provider, all_of(1), redis_url)
    assert still.stop_reason == "refusal"
    RlaifRun.objects.update(round=1)
    rlaif.refresh_from_db()
    (reply,) = work(rlaif, provider, all_of(1), redis_url)
    assert reply.usable
    assert len(provider.asked) == 1


def test_a_worker_that_lost_its_job_sends_nothing(rlaif, books, redis_url):
    claim = jobs.claim(rlaif.job_id)
    assert claim
    provider = Provider()

    async def do(book: Book) -> list[Any]:
        await book.clerk.read(lambda: Job.objects.update(attempt=9))
        return await all_of(1, 2)(book)

    try:
        results = work(rlaif, provider, do, redis_url, guard=claim.guard)
    except jobs.Lost as lost:
        results = [lost]
    assert {type(result) for result in results} == {jobs.Lost}
    assert provider.asked == []
    assert not rlaif.calls.exists()


def test_without_redis_nothing_is_sent(rlaif, books, redis_url):
    provider = Provider()

    class Down(Till):
        async def hold(self, call: str, model: str, most_nano: int) -> str:
            raise Unavailable

    async def main() -> Any:
        clerk = Clerk(nullcontext)
        till = Down(str(rlaif.tenant_id), redis_url, clerk.read)
        await till.start()
        book = Book(rlaif, clerk, till, provider, lambda ask: MOST, 10**9)
        results = await all_of(1)(book)
        await book.close()
        await till.close()
        await clerk.close()
        return results

    (result,) = asyncio.run(main())
    assert isinstance(result, Unavailable)
    assert provider.asked == []
    assert list(rlaif.calls.values_list("state", flat=True)) == [State.RELEASED]
