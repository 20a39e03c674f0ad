"""Production: every secret and address comes from the environment, and there is no default for any secret."""

import os

from django.core.exceptions import ImproperlyConfigured

from .base import *  # noqa: F403
from .base import database


def required(name: str) -> str:
    """The value of an environment variable, or an error that says which one is missing."""
    value = os.environ.get(name, "")
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. Set it in the environment; .env.example explains each one.")
    return value


DEBUG = False
SECRET_KEY = required("SECRET_KEY")
MASTER_KEY = required("MASTER_KEY")
ALLOWED_HOSTS = required("ALLOWED_HOSTS").split(",")
# A leading dot allows every subdomain, which an origin writes as `*.`.
CSRF_TRUSTED_ORIGINS = [f"https://{'*' if host.startswith('.') else ''}{host}" for host in ALLOWED_HOSTS]
required("DATABASE_URL")
DATABASES = database("")
REDIS_URL = required("REDIS_URL")
CELERY_BROKER_URL = REDIS_URL
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
