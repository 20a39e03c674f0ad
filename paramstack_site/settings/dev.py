"""The embedded default: nothing to set, loopback only, secrets generated into `var/` with mode 0600."""

import contextlib
import os
import secrets
from pathlib import Path

from paramstack_site import embedded

from .base import *  # noqa: F403  (settings modules are assembled this way by design)
from .base import ANTHROPIC_API_KEY, HOST, VAR, database


def kept_secret(path: Path) -> str:
    """The secret in `path`, generated once; two processes that race agree on the first one linked into place."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text()


def stored_key(path: Path) -> str:
    """What `setup_api_key` stored in `path`, or nothing."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


DEBUG = os.environ.get("DEBUG", "") == "1"
SECRET_KEY = kept_secret(VAR / "secrets" / "django")
MASTER_KEY = kept_secret(VAR / "secrets" / "master")
ANTHROPIC_API_KEY = ANTHROPIC_API_KEY or stored_key(VAR / "secrets" / "anthropic")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", HOST]
DATABASES = database(f"sqlite:///{VAR / 'paramstack.sqlite3'}")
REDIS_EMBEDDED = "REDIS_URL" not in os.environ
REDIS_URL = os.environ.get("REDIS_URL", embedded.url(VAR))
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://")
SERVE_STATIC = True
