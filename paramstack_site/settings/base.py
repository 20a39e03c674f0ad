"""Settings shared by every environment. Only the modules of this package read the environment."""

import os
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

ROOT = Path(__file__).resolve().parents[2]
VAR = Path(os.environ.get("PARAMSTACK_VAR", ROOT / "var"))

INSTALLED_APPS = [
    "paramstack_site",
    "tenants",
    "inference",
    "training",
    "attestation",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "axes",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "paramstack_site.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "paramstack_site.middleware.language",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "paramstack_site.middleware.tenant",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "paramstack_site.urls"
ASGI_APPLICATION = "paramstack_site.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
                "paramstack_site.context.shell",
            ],
            "builtins": [
                "paramstack_site.templatetags.console",
                "django.templatetags.i18n",
                "django.templatetags.static",
            ],
        },
    }
]

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "registration/locked.html"
AXES_RESET_ON_SUCCESS = True

LANGUAGE_CODE = "tr"
LANGUAGES = [("tr", "Türkçe"), ("en", "English")]
LOCALE_PATHS = [ROOT / "locale"]
USE_I18N = True
USE_TZ = True
USE_THOUSAND_SEPARATOR = True
TIME_ZONE = "Europe/Istanbul"

STATIC_URL = "static/"
STATICFILES_DIRS = [ROOT / "static"]
STATIC_ROOT = VAR / "static"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

UNFOLD = {  # the operator pages, in the console's accent
    "SITE_TITLE": "Param Stack",
    "SITE_HEADER": "Param Stack",
    "SITE_URL": "/",
    "COLORS": {
        "primary": {
            "50": "#eef2fe",
            "100": "#dfe6fc",
            "200": "#b9c7f7",
            "300": "#94aaff",
            "400": "#7d94f4",
            "500": "#4565ea",
            "600": "#2a4fd3",
            "700": "#2041b8",
            "800": "#1b3591",
            "900": "#1a2140",
            "950": "#121419",
        }
    },
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "tenants.authentication.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_METADATA_CLASS": None,  # OPTIONS says nothing about an address that a stranger may not know
    "EXCEPTION_HANDLER": "paramstack_site.api.handle",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Param Stack",
    "VERSION": "v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {"ChoiceEnum": "training.models.Choice"},
    # `check --deploy` is about safety; what the schema lacks is `manage.py spectacular --validate`'s to say.
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
}

# Celery: the job row is the truth, a message only says "look at the job" (docs/adr/0004).
CELERY_APPLICATION = "paramstack_site.celery.app"  # named, not imported: only who sends or runs tasks needs Celery
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"training.tasks.gpu_*": {"queue": "gpu"}}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    # They expire, or a queue that stood still would work off every tick it missed.
    "reap-jobs": {"task": "training.tasks.reap_jobs", "schedule": 10.0, "options": {"expires": 10}},
    "deliver-alerts": {"task": "tenants.tasks.deliver_alerts", "schedule": 30.0, "options": {"expires": 30}},
    "forget-replies": {"task": "tenants.tasks.forget_replies", "schedule": 3600.0, "options": {"expires": 3600}},
    "reconcile-engines": {"task": "inference.tasks.reconcile_engines", "schedule": 300.0, "options": {"expires": 300}},
    "prove-ledger": {"task": "tenants.tasks.prove_ledger", "schedule": 600.0, "options": {"expires": 600}},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "beat-schedule")

# Mail goes to EMAIL_HOST; without one it is written to files, so that nothing is lost and nothing has to be set.
EMAIL_HOST = os.environ.get("EMAIL_HOST", "")
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'filebased'}.EmailBackend"
EMAIL_FILE_PATH = str(VAR / "mail")
EMAIL_PORT = int(os.environ.get("EMAIL_PORT", "587"))
EMAIL_HOST_USER = os.environ.get("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = os.environ.get("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = EMAIL_PORT == 587
EMAIL_USE_SSL = EMAIL_PORT == 465
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = os.environ.get("EMAIL_FROM", "Param Stack <paramstack@localhost>")

SAMPLES = ROOT / "data" / "samples.jsonl"  # written answers with written verdicts, for a start without a key
ARTIFACTS = VAR / "artifacts"  # exports, checkpoints
# Where signed adapters are kept by their digest: a folder, or what fsspec opens (s3://bucket/prefix with s3fs).
ARTIFACT_STORE = os.environ.get("ARTIFACT_STORE", str(ARTIFACTS / "store"))
ENGINE_PORT = int(os.environ.get("ENGINE_PORT", "8041"))
ENGINE_URL = os.environ.get("ENGINE_URL", f"http://127.0.0.1:{ENGINE_PORT}")
# What the embedded stack runs itself: only what no address of another one is set for.
ENGINE_EMBEDDED = "ENGINE_URL" not in os.environ
REDIS_EMBEDDED = False
# Which one that is: `embedded` (transformers, no GPU needed) or `vllm` (`make vllm` first; docs/operations.md).
ENGINE = os.environ.get("ENGINE", "embedded")
if ENGINE not in ("embedded", "vllm"):
    raise ImproperlyConfigured(f"ENGINE is embedded or vllm, not {ENGINE}.")
ENGINE_MODEL = VAR / "models" / "demo-base"
# vLLM's key, made at each of its starts. An engine on another machine has its own: copy the file, or share it.
ENGINE_KEY_FILE = Path(os.environ.get("ENGINE_KEY_FILE", VAR / "engine.key"))
ENGINE_NAME = os.environ.get("ENGINE_NAME", "engine")  # of this host's replica, in every ledger row it answers
ENGINE_CACHE = VAR / "engine"  # verified copies of the adapters that it serves
ENGINE_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
SERVE_STATIC = False  # a web server in front serves STATIC_ROOT
ANTHROPIC_API_KEY = os.environ.get("ANTHROPIC_API_KEY", "")
ANTHROPIC_BASE_URL = os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
HOST = os.environ.get("HOST", "127.0.0.1")
PORT = int(os.environ.get("PORT", "8040"))

CALL_LOG = os.environ.get("CALL_LOG", "1") == "1"  # a line of JSON on stderr for each call of the gateway
# A span for each call goes to this OTLP endpoint, if there is one; the SDK reads its other variables itself.
CALL_SPANS = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{of}ENDPOINT") for of in ("", "TRACES_"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s", "datefmt": "%H:%M:%S"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {"axes": {"level": "WARNING"}, "httpx2": {"level": "WARNING"}},
}


def database(default: str) -> dict[str, dict[str, object]]:
    """DATABASE_URL or `default`; SQLite gets WAL, IMMEDIATE transactions and a busy timeout of 20 s."""
    config = dict(dj_database_url.parse(os.environ.get("DATABASE_URL", default)))
    if config["ENGINE"] == "django.db.backends.sqlite3":
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
        }
    else:
        config["CONN_MAX_AGE"] = 60
        config["CONN_HEALTH_CHECKS"] = True
    return {"default": config}
