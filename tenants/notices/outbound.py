"""A POST to an address that a tenant named: https to the public internet and nowhere else. Pure.

The name is resolved once, every address it has must be public, and the connection goes to one of those addresses while
the certificate is checked against the name: nothing can be swapped in between (DNS rebinding). Redirects are answers,
not orders. Time and answer are bounded.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlsplit

STEP_SECONDS = 5.0  # for the name, for each connection, for each read
TOTAL_SECONDS = 15.0  # for the whole exchange
MOST_ADDRESSES = 3  # that are tried
LONGEST_ANSWER = 16_384  # bytes that are read of an answer; they are thrown away
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Public by their number, but a way to an IPv4 address inside, or nobody's: 6to4, its relay, protocol assignments.
DETOURS = [ipaddress.ip_network(text) for text in ("2002::/16", "192.88.99.0/24", "192.0.0.0/24")]
LOCAL_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadAddress(ValueError):
    """An address that nothing is posted to. `reason`: https, host, port or private."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Failed(Exception):
    """The POST was not taken. The text says why, without anything of the answer's body.

    `reason`: name, time, certificate, reach or status, with what it is about in `fact`.
    """

    def __init__(self, text: str, reason: str = "", fact: str = "") -> None:
        super().__init__(text)
        self.reason, self.fact = reason, fact


def public(address: str) -> bool:
    """Whether an IP address is one of the open internet; a mapped one is judged by what it stands for."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip not in GLOBAL_UNICAST:
            return bool(ip.ipv4_mapped) and public(str(ip.ipv4_mapped))
    elif ip.is_multicast or ip.is_reserved:
        return False
    return ip.is_global and not any(ip in network for network in DETOURS)


def parse(url: str) -> tuple[str, int, str]:
    """Host (ASCII), port and path with query of an address one may post to; raises BadAddress. Resolves no name."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port or 443
    except ValueError as error:
        raise BadAddress("host", f"not an address: {error}") from error
    if parts.scheme != "https":
        raise BadAddress("https", "not https")
    if not host or parts.username is not None or parts.fragment or not url.isprintable() or " " in url:
        raise BadAddress("host", "no host name, or a user, fragment or space in the address")
    if port != 443 and port < 1024:
        raise BadAddress("port", f"port {port} is another service's")
    if _literal(host) is None and ("." not in host.rstrip(".") or _local(host)):
        raise BadAddress("private", f"{host} is a name of a private network")
    if (literal := _literal(host)) and not public(literal):
        raise BadAddress("private", f"{host} is not an address of the public internet")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return host, port, quote(target, safe="/?:@!$&'()*+,;=%~[]")


def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`, all of them public; raises BadAddress if one is not, Failed if there is none."""
    found: list[str] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except OSError as error:
            failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)  # the system's resolver knows no deadline
    asking.start()
    asking.join(STEP_SECONDS)
    addresses = list(found)
    if not addresses:
        text = f"{host} has no address" if failed else f"the name server did not answer for {host}"
        raise Failed(text, "name", host)
    if private := [address for address in addresses if not public(address)]:
        raise BadAddress("private", f"{host} is at {private[0]}, which is not of the public internet")
    return addresses


def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Posts, and answers the 2xx status. Raises BadAddress before anything is sent, Failed if it was not taken."""
    host, port, target = parse(url)
    connection = _connected(host, port, resolve(host, port))
    with contextlib.closing(connection), _deadline(connection) as late:
        try:
            connection.request("POST", target, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _why(error, late) from error
        if late:  # in the middle of the headers, which then look complete
            raise _why(None, late)
        status = response.status
        with contextlib.suppress(OSError, http.client.HTTPException):  # the status has been said
            response.read(LONGEST_ANSWER)
    if not 200 <= status < 300:
        text = f"it answered {status}{', and redirects are not followed' if 300 <= status < 400 else ''}"
        raise Failed(text, "status", str(status))
    return status


class _Pinned(http.client.HTTPSConnection):
    """Speaks to `address` and to no other; the certificate must be that of `host`."""

    def __init__(self, host: str, port: int, address: str) -> None:
        super().__init__(host, port, timeout=STEP_SECONDS)
        self._address, self._tls = address, tls()

    def connect(self) -> None:
        raw = socket.create_connection((self._address, self.port), STEP_SECONDS)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False)
        with _deadline(self):
            self.sock.do_handshake()


def tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _connected(host: str, port: int, addresses: list[str]) -> _Pinned:
    """A connection to the first of `addresses` that takes one; raises Failed."""
    last: Exception | None = None
    for address in addresses[:MOST_ADDRESSES]:
        connection = _Pinned(host, port, address)
        try:
            connection.connect()
            return connection
        except OSError as error:  # ssl's errors are OSErrors
            connection.close()
            last = error
    raise _why(last, []) from last


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection) -> Iterator[list[bool]]:
    """Cuts the connection after TOTAL_SECONDS, however busily the other side drips; then the list is not empty."""
    late: list[bool] = []

    def cut() -> None:
        late.append(True)
        with contextlib.suppress(OSError, AttributeError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    timer = threading.Timer(TOTAL_SECONDS, cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _why(error: Exception | None, late: list[bool]) -> Failed:
    if late or isinstance(error, TimeoutError):
        return Failed("it did not answer in time", "time", f"{TOTAL_SECONDS:g}")
    if isinstance(error, ssl.SSLCertVerificationError):
        text = error.verify_message
        return Failed(f"its certificate does not hold: {text}", "certificate", text)
    told = str(error or "no connection")
    return Failed(f"it cannot be reached: {told}", "reach", told)


def _local(host: str) -> bool:
    name = host.rstrip(".").lower()
    return any(name == local or name.endswith(f".{local}") for local in LOCAL_NAMES)


def _literal(host: str) -> str | None:
    """The address that a host is without any name server: `127.1`, `2130706433` and `0x7f.0.0.1` are all 127.0.0.1."""
    with contextlib.suppress(OSError, UnicodeError):
        return str(socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)[0][4][0])
    with contextlib.suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return None
