"""Settings of the test suite: fast hashing, no lockout noise, addresses from the environment for the marked groups."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("PARAMSTACK_VAR", tempfile.mkdtemp(prefix="paramstack-test-"))

from .base import *  # noqa: F403
from .base import database

VAR = Path(os.environ["PARAMSTACK_VAR"])
SECRET_KEY = "test-only"
MASTER_KEY = "test-only-master"
ALLOWED_HOSTS = ["*"]
DATABASES = database("sqlite://:memory:")
if "sqlite3" in str(DATABASES["default"]["ENGINE"]):
    # A file, as in the embedded default: threads that share an in-memory database meet locks that no timeout waits for.
    DATABASES["default"]["TEST"] = {"NAME": str(VAR / "test.sqlite3")}
REDIS_URL = os.environ.get("REDIS_URL", "unix:///nonexistent/redis.sock")
CELERY_BROKER_URL = "memory://"
CELERY_TASK_ALWAYS_EAGER = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SERVE_STATIC = True  # the browser asks its server for them
ARTIFACTS = VAR / "artifacts"
ANTHROPIC_API_KEY = ""
