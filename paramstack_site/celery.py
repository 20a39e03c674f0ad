"""The Celery application. Messages carry ids; the rows they point at are the truth."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paramstack_site.settings.dev")
app = Celery("paramstack")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
