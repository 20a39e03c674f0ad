"""`manage.py serve`: console and gateway, or the gateway alone with as many workers as there are cores."""

import os
import tempfile
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from inference.gateway import server


class Command(BaseCommand):
    requires_system_checks = ()  # a start is not the moment
    help = "Serve console, REST API and gateway; with --gateway only /v1."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--gateway", action="store_true", help="only /v1: the data plane on its own")
        parser.add_argument("--host", default=settings.HOST)
        parser.add_argument("--port", type=int, default=settings.PORT)
        parser.add_argument("--fd", type=int, help="serve on this listening socket, inherited from whoever starts us")
        parser.add_argument("--workers", type=int, default=1, help="processes; the gateway's is one core each")
        parser.add_argument("--patience", type=int, default=30, help="seconds that calls under way get at the end")

    def handle(
        self,
        *args: Any,
        gateway: bool,
        host: str,
        port: int,
        fd: int | None,
        workers: int,
        patience: int,
        **options: Any,
    ) -> None:
        import uvicorn

        name = "paramstack_site.gateway" if gateway else "paramstack_site.asgi"
        with tempfile.TemporaryDirectory(prefix="paramstack-metrics-") as metrics:
            if workers > 1:  # all of theirs, whichever is asked
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
            uvicorn.run(
                f"{name}:application",
                host=host,
                port=port,
                fd=fd,
                workers=workers,
                lifespan="on",
                timeout_graceful_shutdown=patience,
                **server.OPTIONS,
            )
