"""Every error of the REST API as problem details (RFC 9457): `type`, `title`, `status`, `detail`, and what it is about.

`type` is a URN made of the error's class, or about:blank where the status says it all. `errors` names fields, each with
its sentences. Other members are the error's own, such as the bad rows of an import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

MEDIA_TYPE = "application/problem+json"
# What Django itself raises before or while a body is read.
UNREADABLE: dict[type[Exception], int] = {
    RequestDataTooBig: 413,
    SuspiciousOperation: 400,
    BadRequest: 400,
    UnicodeError: 400,
}


def problem(status: int, detail: str, kind: str = "about:blank", **more: Any) -> dict[str, Any]:
    """The members of one problem; `more` without what is empty."""
    return {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail} | {
        name: value for name, value in more.items() if value
    }


def handle(error: Exception, context: dict[str, Any], status: Mapping[type[Exception], int]) -> Response | None:
    """The answer to an error raised by a view; None for one that nobody foresaw. `status` is that of the verbs' own."""
    for kind, code in {**status, **UNREADABLE}.items():
        if isinstance(error, kind):
            return _response(_of_verb(error, getattr(error, "status", code)))
    found = exception_handler(error, context)
    if found is None:
        return None
    found.data = _of_framework(error, found)
    found.content_type = MEDIA_TYPE
    return found


def _response(body: dict[str, Any]) -> Response:
    return Response(body, status=body["status"], content_type=MEDIA_TYPE)


def _of_verb(error: Exception, status: int) -> dict[str, Any]:
    field = getattr(error, "field", "")
    parsed = getattr(error, "parsed", None)
    rows = parsed and [{"line": row.line, "column": row.column, "reason": row.reason} for row in parsed.errors]
    errors = {field: [str(error)]} if field else None
    if isinstance(error, UnicodeError | SuspiciousOperation):
        return problem(status, _("The request cannot be read. Send less, and valid UTF-8."))
    return problem(status, str(error), _urn(type(error).__name__), errors=errors, rows=rows)


def _of_framework(error: Exception, found: Response) -> dict[str, Any]:
    if isinstance(error, ValidationError):
        fields = found.data if isinstance(found.data, dict) else {"": found.data}
        return problem(
            found.status_code, _("Some values cannot be used; errors names them."), _urn("Invalid"), errors=fields
        )
    code = error.get_codes() if isinstance(error, APIException) else ""
    kind = _urn("mistyped_key") if code == "mistyped_key" else "about:blank"
    detail = found.data.get("detail", "") if isinstance(found.data, dict) else ""
    return problem(found.status_code, str(detail), kind)


def _urn(name: str) -> str:
    """BudgetOutOfRange is urn:paramstack:problem:budget-out-of-range."""
    return "urn:paramstack:problem:" + re.sub(r"(?<=[a-z])(?=[A-Z])|_", "-", name).lower()


def nowhere(request: HttpRequest) -> HttpResponse:
    """An address that the API does not have."""
    detail = _("There is nothing at this address. Addresses of the API end with a slash; /api/v1/schema/ lists them.")
    return JsonResponse(problem(404, detail), status=404, content_type=MEDIA_TYPE)


def broken(error_id: str) -> HttpResponse:
    """A 500: what went wrong is in the log under this number."""
    detail = _("Something broke here. The operator finds it in the log under %(id)s.") % {"id": error_id}
    return JsonResponse(problem(500, detail, error_id=error_id), status=500, content_type=MEDIA_TYPE)
