"""A POST goes to the public internet over https and nowhere else, whatever the address pretends to be."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tenants.notices import outbound

NAME = "hooks.example.com"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.255.255.250", "255.255.255.255"),
        *("240.0.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1", "2001::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "100::1"),
    ],
)
def test_no_address_inside_is_public(address):
    assert not outbound.public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "100.63.255.255", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are(address):
    assert outbound.public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/", "https"),
        ("file:///etc/passwd", "https"),
        ("//example.com/", "https"),
        ("https:///path", "host"),
        ("https://user@example.com/", "host"),
        ("https://user:word@example.com/", "host"),
        ("https://example.com/#part", "host"),
        ("https://example.com:99999/", "host"),
        ("https://exa mple.com/", "host"),
        ("https://example.com/\r\nX: 1", "host"),
        ("https://[::1/", "host"),
        ("https://example.com:22/", "port"),
        ("https://example.com:25/", "port"),
        ("https://localhost/", "private"),
        ("https://LOCALHOST./", "private"),
        ("https://redis.internal/", "private"),
        ("https://printer.local/", "private"),
        ("https://redis/", "private"),
        ("https://127.0.0.1/", "private"),
        ("https://2130706433/", "private"),
        ("https://0x7f000001/", "private"),
        ("https://0177.0.0.1/", "private"),
        ("https://127.1/", "private"),
        ("https://①②⑦.0.0.1/", "private"),
        ("https://[::1]/", "private"),
        ("https://[::ffff:127.0.0.1]/", "private"),
        ("https://[fe80::1%25eth0]/", "private"),
        ("https://169.254.169.254/latest/meta-data/", "private"),
    ],
)
def test_an_address_that_is_not_posted_to(url, reason):
    with pytest.raises(outbound.BadAddress) as caught:
        outbound.parse(url)
    assert caught.value.reason == reason


def test_an_address_that_is():
    assert outbound.parse("https://example.com") == ("example.com", 443, "/")
    assert outbound.parse("https://Örnek.com:8443/a b?x=ğ&y=%20".replace(" ", "%20")) == (
        "xn--rnek-4qa.com",
        8443,
        "/a%20b?x=%C4%9F&y=%20",
    )


def resolves(monkeypatch, *answers):
    """The name server's answers, one for each question; the last one goes on."""
    asked, real = [], socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if kwargs.get("flags") or not host.endswith(".com"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("found", [["10.0.0.1"], ["8.8.8.8", "192.168.1.1"], ["2606:4700::1", "::1"]])
def test_a_name_with_any_private_address_gets_nothing(monkeypatch, found):
    resolves(monkeypatch, found)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    with pytest.raises(outbound.BadAddress) as caught:
        outbound.post(f"https://{NAME}/", b"{}", {})
    assert caught.value.reason == "private"


def test_a_name_that_does_not_exist_fails(monkeypatch):
    def getaddrinfo(*_args, **_kwargs):
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(outbound.Failed, match="no address"):
        outbound.post(f"https://{NAME}/", b"{}", {})


class Receiver:
    """A TLS server on loopback that records requests and answers as told."""

    def __init__(self, directory, name=NAME):
        self.url = ""
        self.answer, self.requests, self.pause = b"HTTP/1.1 204 No Content\r\n\r\n", [], 0.0
        self.certificate, key = certificate(name, directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._listener = context.wrap_socket(listener, server_side=True)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection):
        with connection:
            data = connection.recv(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))[15:])
            while len(body) < length:
                body += connection.recv(65536)
            self.requests.append((head.decode(), body))
            try:
                for byte in [self.answer] if not self.pause else [self.answer[i : i + 1] for i in range(10_000)]:
                    connection.sendall(byte or b"x")
                    time.sleep(self.pause)
            except OSError:
                return

    def close(self):
        self._listener.close()


def certificate(name, directory):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    files = directory / f"{name}.crt", directory / f"{name}.key"
    files[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(*encoding))
    return files


@pytest.fixture
def receiver(tmp_path, monkeypatch):
    """Trusted, and reached at NAME: to this test alone 127.0.0.1 is a public address."""
    server, public = Receiver(tmp_path), outbound.public
    monkeypatch.setattr(outbound, "tls", lambda: ssl.create_default_context(cafile=server.certificate))
    monkeypatch.setattr(outbound, "public", lambda address: address == "127.0.0.1" or public(address))
    resolves(monkeypatch, ["127.0.0.1"])
    server.url = f"https://{NAME}:{server.port}/hooks?a=1"
    yield server
    server.close()


def test_a_post_arrives_at_the_address_that_was_checked(receiver, monkeypatch):
    asked = resolves(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])
    assert outbound.post(receiver.url, b'{"a":1}', {"webhook-id": "msg_1"}) == 204
    head, body = receiver.requests[0]
    assert head.startswith("POST /hooks?a=1 HTTP/1.1\r\n")
    assert f"Host: {NAME}:{receiver.port}" in head
    assert "webhook-id: msg_1" in head
    assert body == b'{"a":1}'
    assert asked == [NAME]  # one question: a second answer would have been another address


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 410, 500])
def test_what_is_not_2xx_is_a_failure_and_no_redirect_is_followed(receiver, status):
    receiver.answer = f"HTTP/1.1 {status} No\r\nLocation: {receiver.url}\r\nContent-Length: 0\r\n\r\n".encode()
    with pytest.raises(outbound.Failed, match=str(status)):
        outbound.post(receiver.url, b"{}", {})
    assert len(receiver.requests) == 1


def test_a_certificate_of_another_name_is_refused(receiver, tmp_path, monkeypatch):
    monkeypatch.setattr(
        outbound, "tls", lambda: ssl.create_default_context(cafile=certificate("other.example.com", tmp_path)[0])
    )
    with pytest.raises(outbound.Failed, match="certificate"):
        outbound.post(receiver.url, b"{}", {})
    monkeypatch.setattr(outbound, "tls", lambda: ssl.create_default_context(cafile=receiver.certificate))
    with pytest.raises(outbound.Failed, match="certificate"):
        outbound.post(receiver.url.replace(NAME, "elsewhere.example.com"), b"{}", {})
    assert not receiver.requests


def test_of_a_long_answer_little_is_read(receiver):
    receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000
    assert outbound.post(receiver.url, b"{}", {}) == 200


def test_a_receiver_that_drips_is_cut_off(receiver, monkeypatch):
    monkeypatch.setattr(outbound, "TOTAL_SECONDS", 0.6)
    receiver.answer, receiver.pause = b"HTTP/1.1 200 OK\r\nX: ", 0.05
    began = time.monotonic()
    with pytest.raises(outbound.Failed, match="in time"):
        outbound.post(receiver.url, b"{}", {})
    assert time.monotonic() - began < 3


def test_a_silent_receiver_is_given_up(receiver, monkeypatch):
    monkeypatch.setattr(outbound, "STEP_SECONDS", 0.3)
    receiver.answer, receiver.pause = b"", 1.0
    with pytest.raises(outbound.Failed):
        outbound.post(receiver.url, b"{}", {})


def test_nobody_there(receiver):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(outbound.Failed, match="cannot be reached"):
        outbound.post(f"https://{NAME}:{port}/", b"{}", {})


def test_the_literal_of_an_inner_network_is_an_address_all_the_same():
    assert outbound._literal("0x7f.1") == "127.0.0.1"
    assert outbound._literal("example.com") is None
