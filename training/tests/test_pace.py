"""Calls go as fast as the provider takes them and no faster, however many workers there are. On a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import redis

from inference.gateway.pipeline import Pipeline, Unavailable
from training.rlaif.pace import EARLY, Pacer

pytestmark = pytest.mark.journey
PER_MINUTE = 6_000  # a turn each 10 ms


def limits(requests: int, outputs: int = 0) -> dict[str, str]:
    told = {"anthropic-ratelimit-requests-limit": str(requests)}
    return told | ({"anthropic-ratelimit-output-tokens-limit": str(outputs)} if outputs else {})


def run(redis_url: str, work: Callable[[Pipeline], Awaitable[None]]) -> None:
    async def main() -> None:
        pipe = Pipeline(redis_url)
        try:
            await work(pipe)
        finally:
            await pipe.close()

    asyncio.run(main())


async def seconds(*pacers: Pacer, turns: int) -> float:
    """For so many turns of each."""
    began = time.monotonic()
    await asyncio.gather(*(pacer.turn() for pacer in pacers for _ in range(turns)))
    return time.monotonic() - began


def test_two_workers_together_keep_to_one_limit(redis_url):
    async def work(pipe: Pipeline) -> None:
        one, two = Pacer(pipe, "key", "m", PER_MINUTE), Pacer(pipe, "key", "m", PER_MINUTE)
        assert 60 / PER_MINUTE * 59 - EARLY - 0.02 <= await seconds(one, two, turns=30) < 3

    run(redis_url, work)


def test_another_key_and_another_model_have_limits_of_their_own(redis_url):
    async def work(pipe: Pipeline) -> None:
        first = Pacer(pipe, "key", "m", PER_MINUTE)
        await first.refused({}, 60)
        await asyncio.wait_for(Pacer(pipe, "key", "n", PER_MINUTE).turn(), 5)
        await asyncio.wait_for(Pacer(pipe, "other", "m", PER_MINUTE).turn(), 5)

    run(redis_url, work)


def test_a_limit_that_was_told_holds_for_every_worker(redis_url):
    async def work(pipe: Pipeline) -> None:
        one, two = Pacer(pipe, "key", "m", 60), Pacer(pipe, "key", "m", 60)  # unlearned: one a second
        await one.answered(limits(60_000), 10, 10)
        assert await seconds(two, turns=50) < 5

    run(redis_url, work)


def test_tokens_are_a_limit_too(redis_url):
    async def work(pipe: Pipeline) -> None:
        pacer = Pacer(pipe, "key", "m", PER_MINUTE)
        await pacer.answered(limits(600_000, outputs=60_000), 10, 100)  # 100 tokens a call: 10 calls a second
        assert await seconds(pacer, turns=5) >= 0.4 - EARLY - 0.02

    run(redis_url, work)


def test_a_refusal_stops_everybody_for_as_long_as_it_said(redis_url):
    async def work(pipe: Pipeline) -> None:
        one, two = Pacer(pipe, "key", "m", PER_MINUTE), Pacer(pipe, "key", "m", PER_MINUTE)
        await one.refused({}, 0.3)
        assert await seconds(two, turns=1) >= 0.28

    run(redis_url, work)


def test_refusals_slow_down_and_calls_that_go_well_speed_up_again(redis_url):
    async def work(pipe: Pipeline) -> None:
        pacer = Pacer(pipe, "key", "m", PER_MINUTE)
        await pacer.refused({}, 0)
        slow = await seconds(pacer, turns=40)
        assert slow >= 39 * 0.015 - EARLY - 0.02
        for _ in range(400):
            await pacer.answered({}, 1, 1)
        await asyncio.sleep(EARLY)
        assert await seconds(pacer, turns=40) < slow

    run(redis_url, work)


def test_the_turn_of_a_cancelled_call_is_the_next_ones(redis_url):
    async def work(pipe: Pipeline) -> None:
        pacer = Pacer(pipe, "key", "m", 60)
        await pacer.turn()
        left, stays = asyncio.ensure_future(pacer.turn()), asyncio.ensure_future(pacer.turn())
        await asyncio.sleep(0.05)
        left.cancel()
        began = time.monotonic()
        await asyncio.wait_for(stays, 5)
        assert time.monotonic() - began < 1.5

    run(redis_url, work)


def test_headers_that_say_nothing_readable_change_nothing(redis_url):
    async def work(pipe: Pipeline) -> None:
        pacer = Pacer(pipe, "key", "m", PER_MINUTE)
        for text in ("", "-1", "1e9", "٣", "9" * 20):
            await pacer.answered({"anthropic-ratelimit-requests-limit": text}, 1, 1)
        assert await seconds(pacer, turns=10) < 3

    run(redis_url, work)


def test_without_redis_nobody_goes():
    async def work(pipe: Pipeline) -> None:
        with pytest.raises(Unavailable):
            await Pacer(pipe, "key", "m").turn()

    run("redis://127.0.0.1:1/0", work)


def test_the_keys_text_is_not_in_redis(redis_url):
    async def work(pipe: Pipeline) -> None:
        await Pacer(pipe, "sk-ant-secret", "m").turn()

    run(redis_url, work)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        (name,) = client.scan_iter()
    assert name.startswith("ps:pace:")
    assert "secret" not in name
