"""The gateway alone, for `manage.py serve --gateway`: /v1 and /healthz, nothing of the console."""

# ruff: noqa: E402  (Django must be set up before the models are imported)

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paramstack_site.settings.dev")
django.setup()

from inference.gateway import reply
from inference.gateway.reply import Receive, Scope, Send
from paramstack_site import loading
from paramstack_site.lifespan import lifespan

gateway = loading.gateway()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(gateway, receive, send)
    elif scope["path"] == "/metrics":
        await loading.metrics(scope, send)
    elif scope["path"] == "/healthz":  # also without a database: what it knows of its tenants answers
        await reply.plain(send, 200, b"ok\n")
    else:
        await gateway(scope, receive, send)
