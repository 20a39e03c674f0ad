"""The audit log as a page: readable, filtered, and turned without counting."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.models import AuditEntry, User

pytestmark = [pytest.mark.django_db, pytest.mark.journey]
PAGE = "/t/acme/settings/audit/"


@pytest.fixture(autouse=True)
def english(cast):
    User.objects.update(language="en")
    cast.auditor.language = "en"


def entry(tenant, action="key.create", before=None, after=None, subject="key abc"):
    return AuditEntry.objects.create(tenant=tenant, action=action, subject=subject, before=before, after=after)


def test_pages_follow_each_other_without_a_count(client, cast):
    made = [entry(cast.acme, subject=f"key n{n}").pk for n in range(60)]
    entry(cast.globex, subject="key of-globex")
    client.force_login(cast.auditor)
    seen, address = [], PAGE
    for _page in range(3):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            answer = client.get(address)
        assert not any("COUNT(*)" in query["sql"] and "auditentry" in query["sql"] for query in queries)
        seen += [row.pk for row in answer.context["entries"]]
        address = f"{PAGE}?after={answer.context['after']}"
    assert seen == made[::-1]
    assert answer.context["after"] == ""
    assert "of-globex" not in answer.text


def test_one_kind_of_change_is_shown_alone(client, cast):
    entry(cast.acme, "key.create", subject="key made")
    entry(cast.acme, "key.revoke", subject="key gone")
    client.force_login(cast.auditor)
    answer = client.get(PAGE, {"action": "key.revoke"})
    assert [row.subject for row in answer.context["entries"]] == ["key gone"]
    assert 'value="key.revoke" selected' in answer.text
    assert "No such change" in client.get(PAGE, {"action": "no.such"}).text


@pytest.mark.parametrize("after", ["abc", "-1", "9" * 30, "9" * 5000, "١٢", "1 OR 1=1", ""])
def test_any_place_in_the_address_is_answered(client, cast, after):
    entry(cast.acme)
    client.force_login(cast.auditor)
    answer = client.get(PAGE, {"after": after})
    assert answer.status_code == 200
    assert len(answer.context["entries"]) == 1


def test_a_stranger_finds_nothing(client, cast):
    client.force_login(cast.outsider)
    assert client.get(PAGE).status_code == 404


def test_who_did_it_is_a_person_a_key_or_the_system(client, cast):
    AuditEntry.objects.create(tenant=cast.acme, actor=cast.owner, action="key.create", subject="key a")
    AuditEntry.objects.create(tenant=cast.acme, key_id="abcdefghijkl", action="key.create", subject="key b")
    entry(cast.acme, subject="key c")
    client.force_login(cast.auditor)
    text = client.get(PAGE).text
    for who in ('<td class="nowrap">owner</td>', ">abcdefghijkl</code>", '<td class="nowrap">system</td>'):
        assert who in text
