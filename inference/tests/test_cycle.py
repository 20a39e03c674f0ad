"""What a connection reads and writes: HTTP/1.1 as clients speak it, in front of applications made for the purpose."""

import asyncio
import logging

import pytest
import uvicorn
from uvicorn.server import ServerState

from inference.gateway import server
from inference.gateway.cycle import RESPOND
from inference.gateway.server import Protocol

DATE = b"date: Wed, 25 Nov 2026 10:00:00 GMT\r\n"


class Wire(asyncio.Transport):
    """What was written, packet by packet."""

    def __init__(self):
        super().__init__()
        self.packets, self.closed, self.reading = [], False, True

    def write(self, data):
        assert not self.closed, "written behind the end"
        self.packets.append(bytes(data))

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name, default=None):
        return ("127.0.0.1", 5000) if name in ("peername", "sockname") else default

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    @property
    def told(self):
        return b"".join(self.packets)


class Served:
    """One connection to `app`; `say` lets its loop turn until nothing moves any more."""

    def __init__(self, app, **options):
        config = uvicorn.Config(app, lifespan="off", **server.OPTIONS | options)
        config.load()
        self.state, self.wire = ServerState(), Wire()
        self.state.default_headers = [(b"date", b"Wed, 25 Nov 2026 10:00:00 GMT")]
        self.protocol = Protocol(config, self.state, {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.wire)

    async def say(self, *pieces):
        for piece in pieces:
            self.protocol.data_received(piece)
            for _ in range(10):
                await asyncio.sleep(0)
        return self.wire.told

    def lose(self):
        self.protocol.connection_lost(None)


def post(body, *lines, version=b"1.1"):
    head = [b"POST /v1/x%%20y?a=b HTTP/%b" % version, b"host: x", b"content-length: %d" % len(body), *lines]
    return b"\r\n".join([*head, b"", body])


async def read(receive):
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def echo(scope, receive, send):
    body = await read(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def streaming(scope, receive, send):
    await read(receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"two", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def test_a_request_is_told_as_asgi_says_and_answered_in_one_packet_of_header_and_body():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    served = Served(app)
    told = await served.say(post(b"hello", b"X-Thing: a", b"x-thing: b"))
    assert told == b"HTTP/1.1 200 OK\r\n" + DATE + b"content-length: 5\r\n\r\nhello"
    (scope,) = scopes
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/v1/x y", b"/v1/x%20y")
    assert (scope["query_string"], scope["http_version"], scope["client"]) == (b"a=b", "1.1", ("127.0.0.1", 5000))
    assert scope["headers"][2:] == [(b"x-thing", b"a"), (b"x-thing", b"b")]
    assert len(served.wire.packets) == 1
    served.lose()


async def test_the_short_way_says_the_same():
    async def app(scope, receive, send):
        await scope["extensions"][RESPOND](429, {"content-type": "text/plain", "x-a": "b"}, b"no")

    served = Served(app)
    told = await served.say(post(b""))
    head = b"HTTP/1.1 429 Too Many Requests\r\n" + DATE
    assert told == head + b"content-type: text/plain\r\nx-a: b\r\ncontent-length: 2\r\n\r\nno"
    served.lose()


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\rb", "a\0b"])
async def test_no_field_can_hold_another_line(caplog, short, value):
    async def app(scope, receive, send):
        if short:
            await scope["extensions"][RESPOND](200, {"x-a": value}, b"")
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", value.encode())]})

    served = Served(app)
    told = await served.say(post(b""))
    assert told.startswith(b"HTTP/1.1 500 ")
    assert b"x-a" not in told
    assert served.wire.closed
    served.lose()


async def test_a_stream_is_chunked_its_header_with_its_first_piece_and_its_end_with_the_last():
    served = Served(streaming)
    await served.say(post(b""))
    head = b"HTTP/1.1 200 OK\r\n" + DATE + b"transfer-encoding: chunked\r\n\r\n"
    assert served.wire.packets == [head + b"3\r\none\r\n"]
    await asyncio.sleep(0.03)
    assert served.wire.told == head + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    served.lose()


async def test_a_header_does_not_wait_for_its_first_piece():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(5)

    served = Served(app)
    told = await served.say(post(b""))
    assert told.endswith(b"transfer-encoding: chunked\r\n\r\n")
    next(iter(served.state.tasks)).cancel()
    await asyncio.sleep(0)
    served.lose()


async def test_requests_that_come_together_are_answered_in_their_order():
    turns = []

    async def app(scope, receive, send):
        body = await read(receive)
        turns.append(body)
        await asyncio.sleep(0.02 if body == b"first" else 0)
        await scope["extensions"][RESPOND](200, {}, body)

    served = Served(app)
    await served.say(post(b"first") + post(b"second") + post(b"third"))
    assert turns == [b"first"]
    await asyncio.sleep(0.05)
    told = served.wire.told
    assert turns == [b"first", b"second", b"third"]
    assert told.index(b"first") < told.index(b"second") < told.index(b"third")
    assert (served.state.total_requests, served.state.tasks, served.wire.reading) == (3, set(), True)
    served.lose()


async def test_who_sent_several_requests_and_goes_is_missed_by_the_one_that_is_answered():
    ends: list[object] = []

    async def app(scope, receive, send):
        ends.append(await read(receive))
        ends.append((await receive())["type"])

    served = Served(app)
    await served.say(post(b"first") + post(b"second"))
    served.lose()
    await asyncio.sleep(0.01)
    assert ends == [b"first", "http.disconnect"]
    assert served.state.tasks == set()


async def test_a_body_in_chunks_and_pieces_arrives_whole():
    served = Served(echo)
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    told = await served.say(head, b"3\r\nabc\r\n", b"2\r\n", b"de\r\n0\r\n", b"\r\n")
    assert told.endswith(b"\r\n\r\nabcde")
    served.lose()


async def test_who_sends_more_than_is_read_is_made_to_wait():
    async def app(scope, receive, send):
        await asyncio.sleep(0.02)
        body = await read(receive)
        await scope["extensions"][RESPOND](200, {}, b"%d" % len(body))

    served = Served(app)
    body = b"x" * 200_000
    await served.say(post(body)[:150_000])
    assert not served.wire.reading
    await asyncio.sleep(0.03)
    assert served.wire.reading
    assert (await served.say(post(body)[150_000:])).endswith(b"\r\n\r\n200000")
    served.lose()


async def test_a_client_that_does_not_read_is_waited_for_and_one_that_goes_is_not():
    sent: list[object] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
            sent.append(number)
            await asyncio.sleep(0)
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        sent.append("gone")

    served = Served(app)
    served.protocol.pause_writing()
    await served.say(post(b""))
    assert sent == []
    served.protocol.resume_writing()
    await served.say(b"")
    assert sent == [0, 1, 2]
    served.lose()
    await asyncio.sleep(0.01)
    assert sent == [0, 1, 2, "gone"]
    assert served.state.tasks == set()


async def test_expect_is_answered_when_the_body_is_wanted():
    served = Served(echo)
    head = post(b"hello", b"Expect: 100-continue")[:-5]
    assert await served.say(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await served.say(b"hello")).endswith(b"\r\n\r\nhello")
    served.lose()


@pytest.mark.parametrize(
    ("request_", "closes"),
    [
        (post(b"a"), False),
        (post(b"a", b"connection: close"), True),
        (post(b"a", version=b"1.0"), True),
        (post(b"a", b"connection: keep-alive", version=b"1.0"), True),
    ],
)
async def test_a_connection_is_kept_where_both_want_it(request_, closes):
    served = Served(echo)
    told = await served.say(request_)
    assert (b"connection: close" in told, served.wire.closed) == (closes, closes)
    served.lose()


async def test_head_gets_a_header_only():
    served = Served(echo)
    told = await served.say(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert told == b"HTTP/1.1 200 OK\r\n" + DATE + b"content-length: 0\r\n\r\n"
    served.lose()


async def test_an_application_that_fails_is_a_500_and_one_that_stops_halfway_a_cut_connection(caplog):
    caplog.set_level(logging.CRITICAL, "inference.gateway.cycle")

    async def broken(scope, receive, send):
        raise ValueError

    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def silent(scope, receive, send):
        pass

    for app, ends in ((broken, b"Internal Server Error"), (silent, b"Internal Server Error"), (half, b"half")):
        served = Served(app)
        told = await served.say(post(b""))
        assert told.endswith(ends)
        assert served.wire.closed
        assert served.state.tasks == set()
        served.lose()


async def test_a_body_of_another_length_than_was_said_is_an_error(caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        with pytest.raises(RuntimeError, match="another length"):
            await send({"type": "http.response.body", "body": b"more"})
        raise ValueError

    served = Served(app)
    await served.say(post(b""))
    assert served.wire.closed
    served.lose()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not():
    async def app(scope, receive, send):
        await asyncio.sleep(0.3 if await read(receive) == b"slow" else 0)
        await scope["extensions"][RESPOND](200, {}, b"")

    served = Served(app, timeout_keep_alive=0.1)
    await served.say(post(b"slow"))
    await asyncio.sleep(0.25)
    assert not served.wire.closed
    await asyncio.sleep(0.3)
    assert served.wire.closed
    assert served.wire.told.count(b"HTTP/1.1") == 1  # without a word
    served.lose()


async def test_shutdown_lets_the_answer_under_way_out():
    served = Served(streaming)
    await served.say(post(b""))
    served.protocol.shutdown()
    assert not served.wire.closed
    await asyncio.sleep(0.03)
    assert served.wire.told.endswith(b"0\r\n\r\n")
    assert served.wire.closed
    served.lose()


@pytest.mark.parametrize(("peer", "told"), [("127.0.0.1", "8.8.8.8"), ("10.0.0.9", "10.0.0.9")])
async def test_a_proxy_is_believed_on_loopback_only(peer, told):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["client"][0], scope["scheme"]))
        await echo(scope, receive, send)

    served = Served(app)
    served.protocol.client = (peer, 1)
    await served.say(post(b"", b"X-Forwarded-For: 8.8.8.8", b"X-Forwarded-Proto: https"))
    assert seen == [(told, "https" if told == "8.8.8.8" else "http")]
    served.lose()
