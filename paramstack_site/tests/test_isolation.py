"""No address shows one tenant to another: every route there is, asked by everybody who may knock."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from django.test import Client

from inference.models import Alias
from paramstack_site.tests import belongings, routes
from paramstack_site.tests.routes import ADMIN, CONSOLE, REST
from tenants import keys
from tenants.models import Member

pytestmark = pytest.mark.journey

# Of no tenant; /healthz and /v1 are asgi's. An invitation's token is the secret that lets in.
OPEN = {"", "login/", "logout/", "preferences/", "invitations/<str:token>/"}
OPEN |= {"api/v1/", "api/v1/schema/", "api/v1/tenants/"}
PEOPLE = Member.Role.values
# A body in which nothing is wrong, once `named` has added objects.
RIGHT = {
    "beta": 0.1,
    "cap": 2,
    "choice": "a",
    "config": {},
    "epochs": 1,
    "generators": ["written"],
    "judges": ["written"],
    "learning_rate": 0.0001,
    "name": "yeni",
    "num_responses": 4,
    "rank": 8,
    "scopes": ["inference"],
    "side": "left",
    "weight": 1_000,
    "weight_bp": 1_000,
}
NAMED = ("dataset", "pair", "export", "adapter", "run", "alias")
MAKERS = {"dataset": "preferences", "run": "exports", "export": "runs", "adapter": "rollouts", "alias": "rollouts"}


def person(cast: Any, name: str) -> Client:
    client = Client()
    client.force_login(getattr(cast, name))
    return client


def machine(tenant: Any) -> Client:
    """A client with a key of `tenant` that manages."""
    return Client(headers={"authorization": f"Bearer {keys.create(tenant, 'machine', scopes=['manage'])[1]}"})


@pytest.fixture(autouse=True)
def _houses(redis_url, engine, neighbour, caplog):
    """Both tenants are furnished; an engine and Redis run. A thousand refusals are no news to the log."""
    caplog.set_level(logging.ERROR, "django.request")


@pytest.mark.parametrize("role", PEOPLE)
def test_no_role_meets_an_error_or_the_neighbour(cast, furnished, role):
    for question, answer in routes.asked(person(cast, role), "acme", furnished, routes.under(CONSOLE, REST)):
        assert answer.status_code < 500, question
        assert "globex" not in routes.said(answer), question


def test_a_key_meets_no_error_and_no_neighbour(cast, furnished):
    for question, answer in routes.asked(machine(cast.acme), "acme", furnished, routes.under(REST)):
        assert answer.status_code < 500, question
        assert "globex" not in routes.said(answer), question


@pytest.mark.parametrize("role", [*PEOPLE, "operator"])
def test_the_neighbours_objects_are_not_found_under_ones_own_address(cast, neighbour, role):
    """Nor by the operator, who may do everything in both tenants."""
    for question, answer in routes.asked(person(cast, role), "acme", neighbour, routes.of_objects(CONSOLE, REST)):
        assert answer.status_code in ({404, 405} if role == "operator" else {403, 404, 405}), question


def test_a_key_finds_no_object_of_the_neighbour(cast, neighbour):
    for question, answer in routes.asked(machine(cast.acme), "acme", neighbour, routes.of_objects(REST)):
        assert answer.status_code in {403, 404}, question


def named(tenant: Any, furnished: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The objects of `tenant` under the names that forms and serializers have for them, by prefix."""
    alias = Alias.objects.get(tenant=tenant)
    ids = {name: furnished[name] for name in NAMED if name in furnished}
    ids |= {"run": furnished["rlaif_run"], "after": furnished["pair"]}
    return {
        CONSOLE: RIGHT | ids | {"alias": alias.pk, "base": alias.base.pk},
        REST: RIGHT | ids | {"alias": alias.name, "base": alias.base.name},
    }


def listings(prefix: str) -> list[routes.Route]:
    return [route for route in routes.under(prefix) if not route.names_an_object]


@pytest.mark.parametrize("prefix", [CONSOLE, REST])
def test_ids_of_the_neighbour_in_a_query_show_nothing(cast, furnished, neighbour, prefix):
    values = named(cast.globex, neighbour)[prefix]
    for question, answer in routes.asked(
        person(cast, "owner"), "acme", furnished, listings(prefix), values, leave="POST"
    ):
        assert answer.status_code < 500, question
        assert "globex" not in routes.said(answer).replace("globex-destek", ""), question  # as the query said


@pytest.mark.parametrize("foreign", NAMED)
def test_an_id_of_the_neighbour_in_a_body_reaches_nothing(cast, furnished, neighbour, foreign):
    own, theirs = named(cast.acme, furnished), named(cast.globex, neighbour)
    before, client, answers = belongings.rows(cast.globex), person(cast, "owner"), {}
    for prefix in (CONSOLE, REST):
        values = own[prefix] | {foreign: theirs[prefix][foreign]}
        for question, answer in routes.asked(client, "acme", furnished, listings(prefix), values, leave="GET"):
            assert answer.status_code < 500, question
            assert "globex" not in routes.said(answer), question
            answers[question] = answer.status_code
    if foreign in MAKERS:
        assert answers[f"POST /api/v1/t/acme/{MAKERS[foreign]}/"] == 404
    assert belongings.rows(cast.globex) == before
    assert not belongings.strays(cast.acme)


@pytest.mark.parametrize("name", sorted(set(MAKERS.values())))
def test_the_same_body_with_ones_own_ids_is_understood(cast, furnished, name):
    """Else the test above would prove nothing."""
    answer = routes.ask(person(cast, "owner"), "POST", f"/api/v1/t/acme/{name}/", named(cast.acme, furnished)[REST])
    assert answer.status_code not in {400, 404}, answer.text


@pytest.mark.parametrize("prefix", [CONSOLE, REST])
def test_a_stranger_finds_nothing(cast, furnished, neighbour, prefix):
    strangers = [person(cast, "outsider"), *([machine(cast.globex)] if prefix == REST else [])]
    for client in strangers:
        for question, answer in [
            *routes.asked(client, "acme", furnished, routes.under(prefix)),
            *routes.asked(client, "acme", neighbour, routes.of_objects(prefix)),
        ]:
            assert answer.status_code == 404, question


def test_nobody_comes_in_without_login(furnished):
    for question, answer in routes.asked(Client(), "acme", furnished, routes.under(CONSOLE)):
        assert answer.status_code == 302, question
        assert answer["location"].startswith("/login/?next="), question
    for question, answer in routes.asked(Client(), "acme", furnished, routes.under(REST)):
        assert answer.status_code == 401, question


def test_what_belongs_to_no_tenant_is_listed_here():
    others = {route.pattern for route in routes.every() if not route.pattern.startswith((CONSOLE, REST, ADMIN))}
    assert others == OPEN


@pytest.mark.parametrize("role", PEOPLE)
def test_what_belongs_to_no_tenant_tells_of_none(cast, role):
    for pattern in OPEN:
        answer = person(cast, role).get(f"/{pattern.replace('<str:token>', 'guessed')}", follow=True)
        assert answer.status_code < 500, pattern
        assert "globex" not in routes.said(answer), pattern


@pytest.mark.parametrize("name", [*PEOPLE, "outsider"])
def test_the_admin_is_the_operators(cast, name):
    client = person(cast, name)
    for address in admin_pages():
        answer = client.get(address)
        assert answer.status_code == 302, address
        assert answer["location"].startswith("/admin/login/"), address


def admin_pages() -> list[str]:
    patterns = [re.sub(r"<[^>]+>", "1", route.pattern) for route in routes.under(ADMIN) if "(?P" not in route.pattern]
    return [f"/{pattern}" for pattern in patterns if pattern not in {"admin/login/", "admin/logout/"}]
