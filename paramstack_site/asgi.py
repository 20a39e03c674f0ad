"""The dispatcher: `/v1` is the gateway's, everything else Django's. Owns startup and shutdown of both."""

# ruff: noqa: E402  (Django must be set up before the models are imported)

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paramstack_site.settings.dev")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()  # before anything that needs the models

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.db import DatabaseError, close_old_connections, connection

from inference.gateway import reply
from inference.gateway.reply import Receive, Scope, Send
from paramstack_site import loading
from paramstack_site.lifespan import lifespan


def database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    finally:
        close_old_connections()
    return True


gateway = loading.gateway()
site: Any = ASGIStaticFilesHandler(django_application) if settings.SERVE_STATIC else django_application


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(gateway, receive, send)
    elif scope["path"] == "/v1" or scope["path"].startswith("/v1/"):
        await gateway(scope, receive, send)
    elif scope["path"] == "/metrics":
        await loading.metrics(scope, send)
    elif scope["path"] == "/healthz":
        await healthz(send)
    else:
        await site(scope, receive, send)


async def healthz(send: Send) -> None:
    """200 when the process answers and reaches its database, else 503."""
    works = await sync_to_async(database_answers, thread_sensitive=False)()
    await reply.plain(send, *((200, b"ok\n") if works else (503, b"no database\n")))
