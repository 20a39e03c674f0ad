"""What every answer has in common: ids, bodies of errors, headers. After anthropic 2.12's types and its API pages.

Where a wording is not published it is our own; the SDK's documentation asks nobody to match on wordings.
"""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

_NUMBERS = itertools.count(1)
_START = secrets.token_hex(6)  # so that no id of an earlier server comes back


@dataclass
class Reply:
    """One HTTP answer; `cut` ends the connection within it, `pieces` are sent instead of `body`, as a stream."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    cut: bool = False
    pieces: list[bytes] = field(default_factory=list)


class Refused(Exception):
    """An error of the API. `kind` is `error.type`; `code` is `error.details.error_code`, if there is one."""

    def __init__(self, status: int, kind: str, message: str, code: str = "", wait_s: int = 0) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.code, self.wait_s = status, kind, message, code, wait_s


def invalid(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message)


def missing(message: str) -> Refused:
    return Refused(404, "not_found_error", message)


def json_reply(value: Any, headers: dict[str, str] | None = None, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value), headers or {})


def error_body(refused: Refused, request_id: str | None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": refused.kind, "message": refused.message}
    if refused.code:
        error["details"] = {"error_code": refused.code}
    return {"type": "error", "error": error, "request_id": request_id}


def error_reply(refused: Refused, request_id: str, headers: dict[str, str] | None = None) -> Reply:
    found = dict(headers or {})
    if refused.wait_s:
        found["retry-after"] = str(refused.wait_s)
    return json_reply(error_body(refused, request_id), found, refused.status)


def new_id(prefix: str) -> str:
    """An id such as `req_011CL…`; later ones of a process sort after earlier ones."""
    return f"{prefix}_01{_START}{next(_NUMBERS):010x}"


def instant(seconds: float) -> str:
    """RFC 3339, as in `created_at`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises Refused."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid("Input should be a valid dictionary")
    return value
