"""The house's own fixtures: Acme and Globex furnished, and an engine that says yes."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from paramstack_site.tests.furniture import furnish


@pytest.fixture
def furnished(cast, settings, tmp_path) -> dict[str, Any]:
    """Acme with one row of everything: the keys of the detail pages, by route name. No engine runs."""
    settings.ENGINE_URL = "http://127.0.0.1:1"
    settings.ARTIFACTS = tmp_path
    return furnish(cast.acme, cast.engineer, cast.reviewer, tmp_path)


@pytest.fixture
def neighbour(cast, furnished, tmp_path) -> dict[str, Any]:
    """The same of Globex."""
    return furnish(cast.globex, cast.outsider, cast.outsider, tmp_path)


class Yes(BaseHTTPRequestHandler):
    """An engine without adapters that loads and unloads whatever it is told to."""

    def do_GET(self) -> None:
        self.answer({"object": "list", "data": [{"id": "demo-base"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer({})

    def answer(self, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def _yes():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Yes)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine(_yes: str, furnished, settings) -> str:
    """The address of an engine; settings.ENGINE_URL points at it."""
    settings.ENGINE_URL = _yes
    return _yes
