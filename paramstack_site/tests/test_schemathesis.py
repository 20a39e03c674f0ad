"""Requests made from the published schema, right and wrong ones: none meets an error of ours.

The operator sends them, from whom nothing is hidden; each is rolled back. Acme is furnished and stands in every path;
two requests of three name things that exist.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from typing import Any

import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from django.test import Client
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from paramstack_site.tests import routes

pytestmark = pytest.mark.journey
SECRET = "c" * 32
PARAMETER = re.compile(r"(\w+)/\{(\w+)\}")
TRIED = {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 6}  # requests of each operation


class Operator:
    """Sends cases and counts the answers by status."""

    def __init__(self, session: str, known: dict[str, str]) -> None:
        self.cookies = {"sessionid": session, "csrftoken": SECRET}
        self.known = known
        self.answered: Counter[int] = Counter()

    def ask(self, case: Any) -> None:
        named = {parameter: self.known[word] for word, parameter in PARAMETER.findall(case.operation.path)}
        if self.answered.total() % 3 == 2 and "slug" in named:
            named = {"slug": named["slug"]}
        case.path_parameters = (case.path_parameters or {}) | named
        with transaction.atomic():
            answer = case.call(headers={"X-CSRFToken": SECRET}, cookies=self.cookies)
            transaction.set_rollback(True)
        self.answered[answer.status_code] += 1
        case.validate_response(answer, checks=[not_a_server_error])


@pytest.fixture
def _one_connection():
    """Requests leave the connection open that the test's transaction lives on, as those of Django's test client do."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.mark.usefixtures("_one_connection")
@pytest.mark.parametrize("mode", TRIED, ids=lambda mode: mode.value)
def test_no_request_meets_an_error_of_ours(cast, redis_url, engine, furnished, mode):
    client = Client()
    client.force_login(cast.operator, backend="django.contrib.auth.backends.ModelBackend")
    known = routes.VALUES | {"t": "acme"} | {word: str(furnished[name]) for word, name in routes.OBJECTS.items()}
    operator = Operator(client.cookies["sessionid"].value, known)
    schema = schemathesis.openapi.from_wsgi("/api/v1/schema/", WSGIHandler())
    limits = settings(
        max_examples=TRIED[mode],
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    asked = 0
    found: Any
    for found in schema.get_all_operations():
        case = found.ok().as_strategy(generation_mode=mode)
        with contextlib.suppress(Unsatisfiable):  # where nothing can be wrong
            seed(20261125)(limits(given(case=case)(operator.ask)))()
            asked += 1
    assert asked > 50
    assert not any(status >= 500 for status in operator.answered)
    assert operator.answered[200], f"Nothing gets through: {operator.answered}"
