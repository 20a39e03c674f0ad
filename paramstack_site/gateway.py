"""The gateway alone, for `manage.py serve --gateway`: /v1 and /healthz, nothing of the console."""

# ruff: noqa: E402  (Django must be set up before the models are imported)

import os
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paramstack_site.settings.dev")
django.setup()

from inference.gateway.reply import Receive, Scope, Send
from paramstack_site import loading
from paramstack_site.lifespan import lifespan

gateway = loading.gateway()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(gateway, receive, send)
    elif scope["path"] == "/metrics":
        await loading.metrics(scope, send)
    elif scope["path"] == "/healthz":
        await healthz(send)
    else:
        await gateway(scope, receive, send)


async def healthz(send: Any) -> None:
    """200 while the process serves: what it knows of its tenants answers also without a database."""
    headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store"), (b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok\n"})
