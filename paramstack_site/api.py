"""The REST API: routes, key authentication, errors."""

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.views import exception_handler


class KeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Any) -> None:
        return None


def handle(error: Exception, context: dict[str, Any]) -> Any:
    return exception_handler(error, context)
