"""Routes: console, admin, REST API. `/v1` belongs to the gateway (`asgi.py`)."""

from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
]
