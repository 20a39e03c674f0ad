"""Clients that mean no good, or are not there any more: none of them is waited for, and none gets in another's way."""

import contextlib
import json
import socket
import time

import pytest

from inference.gateway import reply, server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.journey]


def talk(serving, *pieces, pause=0.0, patience=5.0):
    """What the gateway answers to these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", serving.port), timeout=patience) as plug:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                plug.sendall(piece)
                time.sleep(pause)
        told = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while data := plug.recv(65536):
                told += data
        return told


def error(told):
    head, _, body = told.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


def test_what_is_not_http_gets_an_error_that_a_client_can_read(serving):
    assert error(talk(serving, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")) == (400, "invalid_http")


def test_a_header_without_end_is_cut_off(serving):
    bomb = [b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(200)]
    assert error(talk(serving, HEAD, *bomb)) == (431, "header_too_large")


def test_one_long_line_is_a_header_without_end_too(serving):
    assert error(talk(serving, b"GET /v1/models?", *[b"a" * 10_000] * 20)) == (431, "header_too_large")


def test_a_header_that_drips_is_not_waited_for(serving, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    began = time.monotonic()
    assert error(talk(serving, HEAD, *[b"X: a\r\n"] * 20, pause=0.05)) == (408, "header_timeout")
    assert time.monotonic() - began < 4


def test_a_connection_that_says_nothing_is_closed(serving, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    assert error(talk(serving)) == (408, "header_timeout")


def test_a_body_that_drips_is_not_waited_for(serving, key, monkeypatch):
    monkeypatch.setattr(reply, "BODY_SECONDS", 0.2)
    head = HEAD + f"Authorization: Bearer {key}\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n".encode()
    assert error(talk(serving, head, b'{"model"', patience=2)) == (408, "body_timeout")


@pytest.mark.parametrize("length", ["99999999", "99999999999999999999999999"])
def test_a_body_that_says_that_it_is_too_large_is_not_read(serving, key, length):
    head = HEAD + f"Authorization: Bearer {key}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode()
    told = talk(serving, head, b"{}", patience=1)
    assert error(told)[0] in (400, 413)


def test_others_are_served_meanwhile(serving, key):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            plug = stack.enter_context(socket.create_connection(("127.0.0.1", serving.port)))
            plug.sendall(HEAD)
        assert serving.post(key).status_code == 200
