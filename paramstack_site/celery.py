"""The Celery application. Messages carry ids; the rows they point at are the truth."""

import os
import signal
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from paramstack_site import child

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paramstack_site.settings.dev")
app = Celery("paramstack")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

WORKER = os.getpid()  # the pool's processes are forked from the one that imports this


@worker_process_init.connect  # type: ignore[untyped-decorator]
def die_with_worker(**facts: Any) -> None:
    """A killed worker leaves no pool process behind, and so none of the programs that those supervise."""
    child.die_with_parent(signal.SIGKILL, WORKER)
