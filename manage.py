#!/usr/bin/env python
"""Django's command line; settings default to the embedded development set-up."""

import atexit
import gc
import os
import sys

if __name__ == "__main__":
    # Starting makes many objects and no garbage: collecting them eagerly, and once more while the process ends, is a
    # quarter of what a short command takes.
    gc.set_threshold(200_000, 20, 20)
    atexit.register(gc.freeze)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "paramstack_site.settings.dev")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
