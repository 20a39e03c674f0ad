"""REST about calls: the engine's fields of a tenant, and what callers thought of answers."""

import pytest

from inference.models import Feedback
from tenants import keys
from tenants.models import AuditEntry, Tenant
from tenants.tests.api_client import ACME, by_key, client, is_problem

pytestmark = pytest.mark.django_db


def test_only_the_operator_opens_the_engines_fields(cast):
    wanted = {"fields": ["min_tokens", "ignore_eos"]}
    for person in (cast.owner, cast.engineer, cast.auditor):
        is_problem(client(person).put(ACME + "engine-fields/", wanted), 403)
    is_problem(client(cast.outsider).put(ACME + "engine-fields/", wanted), 404)
    epoch = Tenant.objects.get(pk=cast.acme.pk).epoch
    answer = client(cast.operator).put(ACME + "engine-fields/", wanted)
    assert answer.json() == {"fields": ["ignore_eos", "min_tokens"]}
    assert client(cast.auditor).get(ACME + "engine-fields/").json() == answer.json()
    assert Tenant.objects.get(pk=cast.acme.pk).epoch > epoch
    assert AuditEntry.objects.get(action="tenant.change").after == {"engine_extras": ["ignore_eos", "min_tokens"]}


@pytest.mark.parametrize("names", [["chat_template"], ["cache_salt"], ["nonsense"], [""], "min_tokens", None])
def test_what_cannot_be_opened_is_refused(cast, names):
    answer = client(cast.operator).put(ACME + "engine-fields/", {"fields": names})
    assert answer.status_code in {400, 422}
    assert Tenant.objects.get(pk=cast.acme.pk).engine_extras == []


def test_an_owner_decides_whether_answers_are_kept(cast):
    assert client(cast.owner).patch(ACME, {"keeps_answers": True}).json()["keeps_answers"] is True
    is_problem(client(cast.engineer).patch(ACME, {"keeps_answers": False}), 403)
    assert Tenant.objects.get(pk=cast.acme.pk).keeps_answers


def test_feedback_is_listed_for_its_tenant(cast):
    for number, tenant in enumerate((cast.acme, cast.globex)):
        key = keys.create(tenant, "k", cast.owner)[0]
        Feedback.objects.create(tenant=tenant, key=key, request_id=f"req_{number}", score=4, comment="Güzel")
    (one,) = client(cast.auditor).get(ACME + "feedback/").json()["results"]
    assert (one["request_id"], one["score"], one["comment"]) == ("req_0", 4, "Güzel")
    is_problem(by_key(cast.globex, "manage").get(ACME + "feedback/"), 404)
