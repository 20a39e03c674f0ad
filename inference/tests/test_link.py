"""The gateway's connection to Redis: many commands under way, and what happens when it breaks."""

import asyncio
import contextlib

import hiredis
import pytest
import redis.asyncio

from inference.gateway import link
from inference.gateway.link import Asked, Link, Lost
from inference.gateway.pipeline import Pipeline, Unavailable

ECHO = "return ARGV[1]"


@pytest.fixture
async def pipe(redis_url):
    made = Pipeline(redis_url)
    yield made
    await made.close()


async def test_commands_of_one_tick_travel_together_and_each_gets_its_reply(pipe, redis_url):
    told = await asyncio.gather(*(pipe.run(ECHO, ([], [str(number), "ğ"])) for number in range(500)), pipe.ask("PING"))
    assert told == [*(str(number).encode() for number in range(500)), b"PONG"]


async def test_a_server_that_lost_its_scripts_gets_them_again(pipe, redis_url):
    assert await pipe.run(ECHO, ([], ["a"])) == b"a"
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.script_flush()
    assert await asyncio.gather(*(pipe.run(ECHO, ([], [text])) for text in "bcd")) == [b"b", b"c", b"d"]


async def test_a_command_that_cannot_be_written_shifts_no_reply(pipe):
    wrong = pipe.run(ECHO, ([], [object()]))
    with pytest.raises(Unavailable):
        await wrong
    assert await pipe.run(ECHO, ([], ["right"])) == b"right"


async def test_a_server_that_came_back_without_its_scripts_is_told_them_though_a_connection_was_lost(pipe, redis_url):
    assert await pipe.run(ECHO, ([], ["a"])) == b"a"
    waiting = pipe.run("redis.call('SET', 'x', '1') return ARGV[1]", ([], ["b"]))
    await asyncio.sleep(0)
    pipe._links.link.close()  # while it is under way, to a server that has not met the script
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.script_flush()
    assert await waiting == b"b"


async def test_an_error_of_one_command_is_only_its_own(pipe):
    wrong, right = pipe.ask("NONSENSE"), pipe.ask("PING")
    with pytest.raises(Unavailable):
        await wrong
    assert await right == b"PONG"


async def test_a_connection_that_was_closed_is_opened_again(pipe, redis_url):
    number = await pipe.ask("CLIENT", "ID")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.client_kill_filter(_id=str(number))
    assert await pipe.ask("PING") == b"PONG"
    assert await pipe.ask("CLIENT", "ID") != number


async def ask(opened, *commands):
    asked = [Asked(words) for words in commands]
    opened.send(asked)
    return [await one.reply for one in asked]


class Server:
    """Answers each command with the next of `answers`, or nothing."""

    def __init__(self, *answers):
        self.answers, self.got = list(answers), []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.serving = set()
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    def accept(self, reader, writer):
        self.serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader, writer):
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.got.append(command)
                    if self.answers:
                        writer.write(self.answers.pop(0))
                        await writer.drain()
        writer.close()


async def test_it_says_who_it_is_and_takes_its_database():
    async with Server(b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n") as server:
        opened = await Link.open(f"redis://gateway:sesame@{server.address}/7")
        assert await ask(opened, ("PING",)) == [b"PONG"]
        opened.close()
    assert server.got == [[b"AUTH", b"gateway", b"sesame"], [b"SELECT", b"7"], [b"PING"]]


async def test_who_is_not_let_in_has_no_link():
    async with Server(b"-WRONGPASS no\r\n") as server:
        with pytest.raises(Lost, match="WRONGPASS"):
            await Link.open(f"redis://:wrong@{server.address}/0")


async def test_a_server_that_falls_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(link, "REPLY_SECONDS", 0.05)
    async with Server(b"+OK\r\n") as server:
        opened = await Link.open(f"redis://{server.address}/0")
        assert await ask(opened, ("PING",)) == [b"OK"]
        with pytest.raises(Lost, match="no reply"):
            await ask(opened, ("PING",), ("PING",))
        assert opened.gone
        with pytest.raises(Lost):
            await ask(opened, ("PING",))


async def test_a_command_has_its_whole_time_however_long_the_link_was_idle(monkeypatch):
    monkeypatch.setattr(link, "REPLY_SECONDS", 0.3)
    async with Server(b"+OK\r\n") as server:
        opened = await Link.open(f"redis://{server.address}/0")
        await ask(opened, ("PING",))
        await asyncio.sleep(0.25)  # the watch of the first one looks in 50 ms
        asked = Asked(("PING",))
        opened.send([asked])
        await asyncio.sleep(0.2)
        assert not opened.gone
        with pytest.raises(Lost, match="no reply"):
            await asked.reply


async def test_what_is_not_redis_is_no_reply():
    async with Server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        opened = await Link.open(f"redis://{server.address}/0")
        with pytest.raises(Lost, match="not Redis"):
            await ask(opened, ("PING",))


async def test_nobody_at_the_address_is_unavailable():
    pipe = Pipeline("redis://127.0.0.1:1/0")
    with pytest.raises(Unavailable):
        await pipe.ask("PING")
    await pipe.close()


@pytest.mark.parametrize("error", [asyncio.CancelledError, RuntimeError, ConnectionError])
async def test_whatever_ends_an_opening_nobody_waits_for_ever(error, monkeypatch):
    async def broken():
        raise error

    pipe = Pipeline("redis://127.0.0.1:1/0")
    monkeypatch.setattr(pipe._links, "get", broken)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(pipe.ask("PING"), 1)
    await pipe.close()


async def test_a_command_that_was_under_way_goes_once_more_and_not_for_ever():
    async with Server(b"+OK\r\n") as server:
        pipe = Pipeline(f"redis://{server.address}/0")
        assert await pipe.ask("PING") == b"OK"
        hanging = pipe.ask("GET", "x")
        for count in (2, 3):
            while len(server.got) < count:  # noqa: ASYNC110  (the server is real and sets no event)
                await asyncio.sleep(0.01)
            link = pipe._links.link
            assert link
            link.close()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(hanging, 1)
        assert server.got[1:] == [[b"GET", b"x"], [b"GET", b"x"]]
