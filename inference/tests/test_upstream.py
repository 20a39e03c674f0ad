"""What the gateway makes of an engine's bytes: kept connections, broken answers, replicas that are not well."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from inference.gateway import connection, fleet, upstream
from inference.gateway.fleet import Fleet
from inference.gateway.snapshot import Host, Target
from inference.gateway.upstream import Caller, EngineRefused, EngineUnavailable, Upstream
from inference.protocol import Request, chat
from tenants.metering import Event

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Wire:
    """A server that answers each request with the next of `answers`; None: it closes instead, before a byte."""

    def __init__(self, *answers):
        self.answers, self.requests, self.connections = list(answers), [], 0
        self.serving = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    def accept(self, reader, writer):
        self.serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next((int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), 0)
                self.requests.append((head, await reader.readexactly(size)))
                answer = self.answers.pop(0) if self.answers else OK
                if answer is None:
                    break
                pieces = [answer] if isinstance(answer, bytes) else answer
                for piece in pieces:
                    if piece is None:
                        writer.close()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.005)
        writer.close()


@pytest.fixture
async def pool():
    opened = []

    def make(wire):
        opened.append(Upstream(wire.url, "engine-secret"))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


async def ask(pool):
    async with await pool.post(Caller(), "m", "/v1/chat/completions", b'{"a":1}', "req_1") as response:
        return await response.read()


async def test_one_connection_serves_call_after_call(pool):
    async with Wire() as wire:
        engine = pool(wire)
        assert [await ask(engine) for _ in range(3)] == [b"{}"] * 3
        assert (wire.connections, engine.busy) == (1, 0)
        head, body = wire.requests[0]
        assert body == b'{"a":1}'
        assert b"Authorization: Bearer engine-secret\r\n" in head
        assert b"X-Request-Id: req_1\r\n" in head


async def test_a_call_holds_its_connection_only_while_the_engine_works(pool):
    async with Wire() as wire:
        engine, caller = pool(wire), Caller()
        async with await engine.post(caller, "m", "/v1/chat/completions", b"{}", "req_1") as response:
            assert caller.connection is response.connection
            await response.read()
        assert caller.connection is None  # it is another call's from here on


async def test_a_call_that_was_hung_up_is_not_sent_again(pool):
    async with Wire(OK, [b"", *[b""] * 100], OK) as wire:
        engine, caller = pool(wire), Caller()
        await ask(engine)
        asked = asyncio.create_task(engine.post(caller, "m", "/v1/chat/completions", b"{}", "req_1"))
        await asyncio.sleep(0.1)
        caller.over = True
        assert caller.connection
        caller.connection.close()
        with pytest.raises(EngineUnavailable):
            await asked
        assert len(wire.requests) == 2


async def test_a_kept_connection_that_was_dropped_without_a_byte_is_replaced(pool):
    async with Wire(OK, None, OK) as wire:
        engine = pool(wire)
        assert [await ask(engine), await ask(engine)] == [b"{}", b"{}"]
        assert wire.connections == 2


async def test_a_new_connection_that_is_dropped_is_not_asked_again(pool):
    async with Wire(None) as wire:
        with pytest.raises(EngineUnavailable):
            await ask(pool(wire))
        assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", None],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", None],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n", None],
    ],
    ids=["not HTTP", "cut off", "chunks cut off", "no chunk"],
)
async def test_a_broken_answer_is_an_error_and_its_connection_is_not_kept(pool, answer):
    async with Wire(answer, OK) as wire:
        engine = pool(wire)
        with pytest.raises((EngineUnavailable, connection.Broken)):
            await ask(engine)
        assert await ask(engine) == b"{}"
        assert wire.connections == 2


@pytest.mark.parametrize("late", [False, True], ids=["behind the answer", "later"])
async def test_what_an_engine_says_unasked_is_nobodys_answer(pool, late):
    stolen = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
    async with Wire([OK, b"", stolen] if late else OK + stolen, OK) as wire:
        engine = pool(wire)
        assert await ask(engine) == b"{}"
        await asyncio.sleep(0.05)
        assert await ask(engine) == b"{}"
        assert wire.connections == 2


async def test_who_has_gone_while_a_connection_was_opened_asks_nothing(pool):
    async with Wire() as wire:
        caller = Caller()
        caller.over = True
        with pytest.raises(EngineUnavailable):
            await pool(wire).post(caller, "m", "/v1/chat/completions", b"{}", "req_1")
        assert wire.requests == []


async def test_a_body_without_a_length_ends_with_its_connection(pool):
    async with Wire([b"HTTP/1.1 200 OK\r\n\r\n", b'{"whole"', b":1}", None]) as wire:
        assert await ask(pool(wire)) == b'{"whole":1}'


async def test_an_announcement_before_the_answer_is_passed_over(pool):
    async with Wire([b"HTTP/1.1 100 Continue\r\n\r\n", OK]) as wire:
        assert await ask(pool(wire)) == b"{}"


async def test_an_engine_that_sends_faster_than_it_is_read_waits(pool, monkeypatch):
    monkeypatch.setattr(connection, "MOST_WAITING", 1000)
    pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n", *[b"x" * 4000] * 10]
    async with (
        Wire(pieces) as wire,
        await pool(wire).post(Caller(), "m", "/v1/chat/completions", b"{}", "req_1") as response,
    ):
        await asyncio.sleep(0.2)
        assert response.connection._paused
        assert len(await response.read()) == 40_000


async def test_what_the_engine_refuses_is_said_in_its_words(pool):
    said = b'{"error":{"message":"Too long."}}'
    async with Wire(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)) as wire:
        with pytest.raises(EngineRefused, match="Too long"):
            await ask(pool(wire))


async def test_an_engine_that_is_silent_is_given_up(pool, monkeypatch):
    monkeypatch.setattr(upstream, "SILENT_SECONDS", 0.05)
    async with Wire([b"HTTP/1.1 200 OK\r\n", b"", b"", b"", *[b""] * 100]) as wire:
        engine = pool(wire)
        asked = asyncio.create_task(ask(engine))
        await asyncio.sleep(0.2)
        engine.tidy(asyncio.get_running_loop().time() + 1)
        with pytest.raises(EngineUnavailable):
            await asked


@dataclass
class Calling:
    target: Target
    event: Event = field(default_factory=lambda: Event("req_1", "t", "k", "2026-11-25", "estimated", "m", "m"))
    request: Request = field(default_factory=lambda: Request(chat.CHAT, "m", {}, "", 0))
    host: Host | None = None
    connection: object = None
    over: bool = False
    carried: str = ""


def calling(*wires):
    hosts = tuple(Host(f"engine-{number}", wire.url) for number, wire in enumerate(wires))
    return Calling(Target("m", "", 1, 1, 1, hosts=hosts))


@pytest.fixture
async def engines(monkeypatch):
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.02)
    made = Fleet()
    made.start()
    yield made
    await made.close()


async def post(engines, call):
    async with await engines.post(call, b"{}") as response:
        return await response.read()


SICK = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


async def test_another_replica_answers_where_one_has_said_nothing(engines):
    async with Wire(*[None] * 50) as dead, Wire() as alive:
        for _ in range(20):
            call = calling(dead, alive)
            assert await post(engines, call) == b"{}"
            assert call.host.name == "engine-1"
        assert len(alive.requests) == 20


async def test_a_replica_that_failed_again_and_again_gets_nothing_until_it_is_well(engines):
    async with Wire(*[SICK] * 3, SICK) as wire:
        for _ in range(3):
            with pytest.raises(EngineUnavailable):
                await post(engines, calling(wire))
        asked = len(wire.requests)
        with pytest.raises(EngineUnavailable, match="no engine serves it"):
            await post(engines, calling(wire))
        assert len([head for head, _ in wire.requests[asked:] if head.startswith(b"POST")]) == 0
        await asyncio.sleep(0.3)  # /health answers 200 by now
        assert await post(engines, calling(wire)) == b"{}"


async def test_a_refused_call_is_not_sent_to_another_replica(engines):
    said = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"
    async with Wire(*[said] * 9) as one, Wire(*[said] * 9) as other:
        with pytest.raises(EngineRefused):
            await post(engines, calling(one, other))
        assert len(one.requests) + len(other.requests) == 1


async def test_an_adapter_that_one_replica_lacks_does_not_make_it_sick(engines):
    lacks = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
    async with Wire(*[lacks] * 5) as wire:
        for _ in range(5):
            with pytest.raises(EngineUnavailable, match="404"):
                await post(engines, calling(wire))
        assert await post(engines, calling(wire)) == b"{}"


async def test_the_least_loaded_replica_is_asked(engines):
    slow = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", *[b""] * 60, b"{}"]
    async with Wire(slow, slow, slow, slow) as one, Wire(slow, slow, slow, slow) as other:
        await asyncio.gather(*(post(engines, calling(one, other)) for _ in range(4)))
        assert (len(one.requests), len(other.requests)) == (2, 2)


async def test_without_a_replica_nobody_answers(engines):
    with pytest.raises(EngineUnavailable, match="no engine serves it"):
        await post(engines, Calling(Target("m", "", 1, 1, 1)))
